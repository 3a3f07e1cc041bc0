"""Signals are brought into the store once a slot, whatever process asks; a zone's past makes its forecast better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from cluster.api import MeterRow
from jobs.spec import iso
from orchestrator.http.session import shared
from orchestrator.refresh import AHEAD, HISTORY, Refresher
from orchestrator.report import build
from orchestrator.signal.chain import Purpose
from orchestrator.site import Site, resolve_site
from orchestrator.store import Store, facts, forecasts, jobs
from orchestrator.store.accounts import account_of
from orchestrator.store.schema import Job, Segment
from tests.unit.orchestrator.loopback import Asked, ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import forecast_of, hour, stamp
from tests.unit.orchestrator.signal.plugin import plug_in
from tests.unit.orchestrator.specs import tiny

HOUR = timedelta(hours=1)
SPEC = tiny()


def shape(at: datetime) -> float:
    """A grid with a day's shape, in g/kWh."""
    return 300 + 100 * math.sin(at.hour / 24 * 2 * math.pi)


def past_of(asked: Asked) -> Reply:
    """What was measured in the range that is asked for, up to the hour in progress."""
    start, end = (datetime.fromisoformat(asked.params[name].replace("Z", "+00:00")) for name in ("start", "end"))
    rows, at = [], start.replace(minute=0, second=0, microsecond=0)
    while at < min(end, datetime.now(timezone.utc)):
        if at >= start:
            rows.append({"carbonIntensity": shape(at), "datetime": stamp(at), "isEstimated": False})
        at += HOUR
    return Reply({"zone": "DE", "data": rows, "temporalGranularity": "hourly"})


def fault_of(session: Session, zone: str, purpose: Purpose) -> str | None:
    """What the providers of a zone said when they were last asked, where that was no forecast."""
    row = forecasts.tried(session, zone, purpose)
    return row.fault if row is not None else None


@pytest.fixture
def maps(server: ProviderServer) -> ProviderServer:
    """Electricity Maps with a forecast of a day and any past."""
    server.on("forecast", Reply(forecast_of([shape(hour(n)) for n in range(25)])))
    server.replies["past-range"] = past_of
    return server


def site_of(folder: Path, zone: dict[str, object], base_url: str = "") -> Site:
    providers = {"electricity_maps": {"base_url": base_url, "timeout": "2s"}} if base_url else {}
    return resolve_site({"zones": {"DE": zone}, "providers": providers, "slot": "15m"}, folder, "test")


@pytest.fixture
def site(tmp_path: Path, maps: ProviderServer) -> Iterator[Site]:
    site = site_of(tmp_path, {"provider": "electricity_maps"}, maps.url)
    yield site
    shared(site.state / "cache").close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'lowtide.db'}")
    yield store
    store.close()


def asked(server: ProviderServer, signal: str, what: str) -> list[Asked]:
    return [one for one in server.asked if one.path.endswith(f"/{signal}/{what}")]


def test_a_zone_is_asked_once_a_slot_whatever_process_asks(site: Site, store: Store, maps: ProviderServer) -> None:
    for _ in range(3):
        Refresher(store, site).once()
    assert len(asked(maps, "carbon-intensity", "forecast")) == 1
    past = len(asked(maps, "carbon-intensity", "past-range"))
    assert past == math.ceil(HISTORY / timedelta(days=10)), "the whole past is asked for once, ten days at a time"


def test_the_past_is_kept_and_extends_the_forecast_with_an_interval(site: Site, store: Store) -> None:
    Refresher(store, site).once()
    now = datetime.now(timezone.utc)
    with store.read() as session:
        past = forecasts.history(session, "DE", ["electricity_maps"], now - HISTORY)
        better = forecasts.newest(session)["DE"]
    assert len(past) >= HISTORY / HOUR - 2
    assert all(point.g_per_kwh == pytest.approx(shape(point.start)) for point in past)
    given, extended = better.points[:25], better.points[25:]
    assert {point.kind for point in given} == {"forecast"}
    assert {point.kind for point in extended} == {"extended"}
    assert better.points[-1].end >= now + AHEAD - HOUR
    for point in extended:
        assert point.low_g_per_kwh is not None and point.g_per_kwh is not None and point.high_g_per_kwh is not None
        assert point.low_g_per_kwh <= point.g_per_kwh <= point.high_g_per_kwh
        assert point.g_per_kwh == pytest.approx(shape(point.start), rel=0.1)


def test_a_later_answer_asks_only_for_what_may_have_been_revised(
    site: Site, store: Store, maps: ProviderServer
) -> None:
    Refresher(store, site).once()
    with store.write() as session:
        row = forecasts.tried(session, "DE", "plan")
        assert row is not None
        row.tried_at = row.measured_at = hour(-1)
    maps.asked.clear()
    Refresher(store, site).once()
    (again,) = asked(maps, "carbon-intensity", "past-range")
    assert again.params["start"] >= iso(hour(-26))


def test_a_fault_is_kept_with_its_words(site: Site, store: Store, maps: ProviderServer) -> None:
    maps.on("forecast", Reply({"error": "Invalid auth-token"}, 401), Reply(forecast_of([100.0] * 25)))
    Refresher(store, site).once()
    with store.read() as session:
        assert forecasts.newest(session) == {}
        assert "electricity_maps: zone DE: the key" in str(fault_of(session, "DE", "plan"))


def test_a_zone_that_plans_by_one_and_is_charged_by_another_keeps_both(tmp_path: Path, store: Store) -> None:
    trace = tmp_path / "de.csv"
    rows = [f"{iso(hour(n))},{shape(hour(n))}" for n in range(-72, 48)]
    trace.write_text("start_utc,g_per_kwh\n" + "\n".join(rows) + "\n")
    site = site_of(tmp_path, {"plan_by": "demo", "charge_by": "csv", "file": "de.csv"})
    Refresher(store, site).once()
    with store.read() as session:
        assert forecasts.newest(session, "plan")["DE"].provider == "demo"
        assert forecasts.newest(session, "charge")["DE"].provider == "csv"
        charging = site.zones["DE"].charging
        said = facts.intensities(session, "DE", hour(-24), hour(), charging)
        assert {row.provider for row in said} == {"csv"} and len(said) >= 24


@pytest.mark.parametrize(("plans", "charges"), [("marginal", "average"), ("average", "marginal")])
def test_both_signals_of_a_zone_are_kept_and_one_of_them_charges_once(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, plans: str, charges: str
) -> None:
    plug_in(monkeypatch, tmp_path / "plugged")
    site = site_of(tmp_path, {"plan_by": plans, "charge_by": charges})
    for _ in range(2):
        Refresher(store, site).once()
    now = datetime.now(timezone.utc)
    with store.write() as session:
        job = jobs.submit(session, SPEC, hour())
        row = MeterRow("boot", "cpu", 1, "node", hour(), now, 3.6e6, "estimated", "train", job.id, f"{job.id}-1", 0)
        session.add(
            Segment(
                id=f"{job.id}-1", job_id=job.id, n=1, zone="DE", workers=1, gpus=0, reason="start", run_until=now,
                ends_as="expired", ordered_at=hour(), start_step=0, step=0, parts_s={},
            )
        )  # fmt: skip
        facts.add_rows(session, [row])
    with store.read() as session:
        said = facts.intensities(session, "DE", hour(), now)
        assert {(each.provider, each.signal) for each in said} == {(name, name) for name in (plans, charges)}
        document = build(account_of(session, site, session.get_one(Job, job.id), now, whole=True))
    assert document["signal"]["kind"] == charges
    for charged_g in ("marginal_emissions_g", "average_emissions_g"):
        assert document[charged_g] == pytest.approx(100.0), "one kWh at 100 g"
    assert document["emissions_g"]["operational"] == pytest.approx(100.0)


def test_only_the_zones_that_are_named_are_asked(tmp_path: Path, store: Store) -> None:
    zones = {zone: {"provider": "demo"} for zone in ("A", "B")}
    site = resolve_site({"zones": zones}, tmp_path, "test")
    Refresher(store, site).once(["B"])
    with store.read() as session:
        assert forecasts.newest(session).keys() == {"B"}


def test_another_provider_in_the_site_file_is_asked_at_once(tmp_path: Path, store: Store) -> None:
    Refresher(store, site_of(tmp_path, {"provider": "demo"})).once()
    (tmp_path / "de.csv").write_text(f"start_utc,g_per_kwh\n{iso(hour())},55\n{iso(hour(1))},56\n")
    Refresher(store, site_of(tmp_path, {"provider": "csv", "file": "de.csv"})).once()
    with store.read() as session:
        assert forecasts.newest(session)["DE"].provider == "csv"


def test_a_provider_that_the_site_file_names_no_more_is_not_planned_by_where_the_new_one_fails(
    tmp_path: Path, store: Store, site: Site, maps: ProviderServer
) -> None:
    maps.on("forecast", Reply({"error": "Invalid auth-token"}, 401))
    Refresher(store, site_of(tmp_path, {"provider": "demo"})).once()
    Refresher(store, site).once()
    with store.read() as session:
        assert forecasts.newest(session) == {}


def test_a_stale_forecast_says_what_its_providers_said(site: Site, store: Store, maps: ProviderServer) -> None:
    Refresher(store, site).once()
    shared(site.state / "cache").now = lambda: datetime.now(timezone.utc) + 2 * HOUR  # its answer is fresh no more
    with store.write() as session:
        row = forecasts.tried(session, "DE", "plan")
        assert row is not None
        row.tried_at = hour(-1)
    maps.on("forecast", Reply({"error": "maintenance"}, 408))
    Refresher(store, site).once()
    with store.read() as session:
        found = forecasts.newest(session)["DE"]
    assert found.stale
    assert found.fault is not None and "electricity_maps: zone DE: " in found.fault and "maintenance" in found.fault


def test_a_zone_whose_file_is_wrong_keeps_no_other_from_its_forecast(tmp_path: Path, store: Store) -> None:
    (tmp_path / "a.csv").write_text("start_utc,g_per_kwh\n2020-01-01T00:00:00Z,much\n")
    zones = {"A": {"provider": "csv", "file": "a.csv"}, "B": {"provider": "demo"}}
    faults = Refresher(store, resolve_site({"zones": zones}, tmp_path, "test")).once()
    assert faults.keys() == {"A"}
    with store.read() as session:
        assert forecasts.newest(session).keys() == {"B"}
        assert "line 2: g_per_kwh: 'much'" in str(fault_of(session, "A", "plan"))
