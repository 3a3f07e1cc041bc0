"""What of the store charges a job: the charging provider's own words, the latest of them, and never lowtide's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cluster.api import MeterRow
from orchestrator.accounting.ledger import Curve, add_up
from orchestrator.report import build
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.signal.measured import Measured
from orchestrator.site import Site
from orchestrator.store import Store, facts, forecasts, jobs
from orchestrator.store.accounts import account_of
from orchestrator.store.schema import Job, ProgressRow, Segment
from tests.unit.orchestrator.specs import tiny

T0 = datetime(2026, 3, 1, 6, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SPEC = tiny()


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A job that drew 3.6 MJ in each of two hours in DE."""
    opened = Store(database)
    with opened.write() as session:
        job = jobs.submit(session, SPEC, T0)
        session.add(_segment(job.id))
        rows = [
            MeterRow(
                "boot", "cpu", n, "node", T0 + n * HOUR, T0 + (n + 1) * HOUR, 3.6e6, "estimated", "train", "tiny",
                "tiny-1", 0,
            )
            for n in range(2)
        ]  # fmt: skip
        facts.add_rows(session, rows)
    yield opened
    opened.close()


def _segment(job_id: str) -> Segment:
    return Segment(
        id=f"{job_id}-1", job_id=job_id, n=1, zone="DE", workers=1, gpus=0, reason="start", run_until=T0 + 9 * HOUR,
        ends_as="expired", ordered_at=T0, start_step=0, step=10, trained_steps=10, trained_s=7200.0, parts_s={},
    )  # fmt: skip


def points(*values: float | None, kind: str = "measured", first: int = 0, given: float | None = None) -> Any:
    return tuple(
        Point(T0 + n * HOUR, T0 + (n + 1) * HOUR, value, kind, given_g_per_kwh=given)  # type: ignore[arg-type]
        for n, value in enumerate(values, first)
    )


def said(*values: float | None, provider: str = "electricity_maps", minutes: int = 0, **more: Any) -> Measured:
    signal = more.pop("signal", "average")
    return Measured("DE", provider, signal, points(*values, **more), T0 + timedelta(minutes=minutes))


def account(store: Store, **zone: Any) -> Any:
    site = Site.model_validate({"zones": {"DE": {"provider": "electricity_maps", **zone}}})
    with store.read() as session:
        return account_of(session, site, session.get_one(Job, "tiny"), T0 + 2 * HOUR)


def keep(store: Store, *every: Measured) -> None:
    with store.write() as session:
        for each in every:
            facts.add_intensities(session, each)


def test_each_slot_keeps_who_said_it(store: Store) -> None:
    keep(store, said(100.0, None), said(None, 300.0, provider="energy_charts"))
    ledger = add_up(account(store, provider=["electricity_maps", "energy_charts"]))
    assert ledger.total.operational_g == pytest.approx(400.0)
    assert ledger.providers == ("electricity_maps", "energy_charts")
    assert (ledger.coverage_percent, ledger.measured_percent) == (100.0, 100.0)


def test_an_hour_without_a_value_lowers_the_coverage_and_a_forecast_of_it_the_measured_share(store: Store) -> None:
    keep(store, said(100.0))
    signal = build(account(store))["signal"]
    assert signal == {
        "provider": "electricity_maps", "kind": "average", "coverage_percent": 50.0, "measured_percent": 50.0,
    }  # fmt: skip
    keep(store, said(200.0, kind="forecast", first=1))
    signal = build(account(store))["signal"]
    assert (signal["coverage_percent"], signal["measured_percent"]) == (100.0, 50.0)


def test_a_revision_charges_and_what_was_said_before_stays(store: Store) -> None:
    keep(store, said(100.0, 100.0), said(150.0, 100.0, minutes=60), said(150.0, 100.0, minutes=120))
    assert add_up(account(store)).total.operational_g == pytest.approx(250.0)
    with store.read() as session:
        kept = facts.intensities(session, "DE", T0, T0 + HOUR)
        assert [(row.g_per_kwh, row.fetched_at - T0) for row in kept] == [(100.0, timedelta()), (150.0, HOUR)]


def test_a_forecast_that_comes_again_beside_what_was_measured_is_kept_once(store: Store) -> None:
    forecast, measured = said(120.0, kind="forecast"), said(100.0)
    keep(store, *(replace(each, fetched_at=T0 + n * HOUR) for n in range(3) for each in (forecast, measured)))
    with store.read() as session:
        assert len(facts.intensities(session, "DE", T0, T0 + HOUR)) == 2


def test_what_the_first_provider_measured_stands_though_another_was_asked_later(store: Store) -> None:
    keep(store, said(100.0, 100.0), said(900.0, 900.0, provider="energy_charts", minutes=60))
    ledger = add_up(account(store, provider=["electricity_maps", "energy_charts"]))
    assert (ledger.total.operational_g, ledger.providers) == (pytest.approx(200.0), ("electricity_maps",))


def test_only_the_charging_provider_charges_where_a_zone_names_one(store: Store) -> None:
    keep(store, said(700.0, 700.0, provider="watttime", signal="marginal"), said(100.0))
    apart = {"provider": [], "plan_by": "watttime", "charge_by": "electricity_maps"}
    report = build(account(store, **apart))
    assert report["signal"] == {
        "provider": "electricity_maps", "kind": "average", "coverage_percent": 50.0, "measured_percent": 50.0,
    }  # fmt: skip
    assert not any("marginal" in note for note in report["notes"])
    both_by_one = build(account(store, provider="watttime", charge_by="watttime"))
    assert (both_by_one["signal"]["provider"], both_by_one["signal"]["kind"]) == ("watttime", "marginal")


def test_average_intensities_charge_where_there_are_any_and_nobody_is_named(store: Store) -> None:
    keep(store, said(700.0, 700.0, provider="watttime", signal="marginal"), said(100.0))
    assert build(account(store, provider="watttime"))["signal"]["kind"] == "average"


def test_a_zone_of_marginal_intensities_alone_is_charged_by_them_and_says_so(store: Store) -> None:
    keep(store, said(700.0, 700.0, provider="watttime", signal="marginal"))
    report = build(account(store, provider="watttime"))
    assert (report["signal"]["provider"], report["signal"]["kind"]) == ("watttime", "marginal")
    assert any(note.startswith("Charged by marginal intensities") for note in report["notes"])


def test_a_chain_that_may_mix_is_charged_by_both_and_says_so(store: Store) -> None:
    keep(store, said(100.0), said(700.0, 700.0, provider="watttime", signal="marginal"))
    report = build(account(store, provider=["electricity_maps", "watttime"], mix=True))
    assert (report["emissions_g"]["operational"], report["signal"]["kind"]) == (800.0, "average and marginal")
    assert any(note.startswith("In part charged by marginal intensities") for note in report["notes"])


@pytest.mark.parametrize("kept_as", ["slot", "newest forecast"])
def test_a_corrected_forecast_charges_by_what_its_provider_said(store: Store, kept_as: str) -> None:
    corrected = Forecast("DE", "electricity_maps", "average", points(80.0, 80.0, kind="forecast", given=100.0), T0)
    with store.write() as session:
        if kept_as == "slot":
            facts.add_intensities(session, corrected)
        else:
            forecasts.keep(session, "DE", "plan", T0, corrected, None)
    assert add_up(account(store)).total.operational_g == pytest.approx(200.0)


def test_what_lowtide_extended_never_charges(store: Store) -> None:
    extended = Forecast("DE", "electricity_maps", "average", points(80.0, 80.0, kind="extended"), T0)
    with store.write() as session:
        facts.add_intensities(session, extended)
        forecasts.keep(session, "DE", "plan", T0, extended, None)
        assert not facts.intensities(session, "DE", T0, T0 + 2 * HOUR)
    assert add_up(account(store)).coverage_percent == 0.0


def test_the_forecast_to_come_is_the_charging_providers(store: Store) -> None:
    planned = Forecast("DE", "watttime", "marginal", points(700.0, 700.0, 700.0, kind="forecast"), T0)
    charged = Forecast("DE", "electricity_maps", "average", points(100.0, 100.0, 100.0, kind="forecast"), T0)
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", T0, planned, None)
        forecasts.keep(session, "DE", "charge", T0, charged, None)
    found = account(store, provider=[], plan_by="watttime", charge_by="electricity_maps")
    pieces = Curve.of("DE", found.intensities).pieces
    assert [(p.start, p.end, p.g_per_kwh, p.provider) for p in pieces] == [
        (T0, T0 + 3 * HOUR, 100.0, "electricity_maps")
    ]


def test_a_node_s_overhead_is_shared_with_the_other_jobs_that_were_metered_there(store: Store) -> None:
    with store.write() as session:
        other = jobs.submit(session, SPEC.model_copy(update={"name": "other"}), T0)
        session.add(_segment(other.id))
        row = MeterRow("boot", "cpu", 9, "node", T0, T0 + HOUR, 1.2e6, "estimated", "train", "other", "other-1", 0)
        idle = replace(row, seq=10, phase="idle", job_id=None, segment_id=None, rank=None)
        facts.add_rows(session, [row, replace(row, host_boot="elsewhere"), idle])
        session.get_one(Segment, "other-1").ended_at = T0 + HOUR
    keep(store, said(100.0, 100.0))
    found = account(store, node_overhead_w=60)
    assert [(n.host_boot, n.job_id, n.start, n.end) for n in found.neighbours] == [("boot", "other", T0, T0 + HOUR)]
    ledger = add_up(found)
    assert ledger.overhead is not None
    # Of 3.6 + 1.2 + 1.2 MJ in the first hour, the second of which was the other's and the third nobody's; then alone.
    assert ledger.overhead.energy_j == pytest.approx(60 * 3600 * (0.6 + 1))
    assert account(store).neighbours == [] and account(store).beside == ()


def test_the_seconds_by_part_of_a_step_share_out_the_joules_of_training(store: Store) -> None:
    with store.write() as session:
        parts_s = {"train": 7200.0, "first_step": 9.0, "step.forward": 1800.0, "step.backward": 5400.0}
        session.get_one(Segment, "tiny-1").parts_s = parts_s
    found = account(store)
    assert found.segments[0].step_parts_s == {"forward": 1800.0, "backward": 5400.0}
    training = build(found)["train_energy_j"]
    assert (training["forward"], training["backward"]) == (pytest.approx(1.8e6), pytest.approx(5.4e6))
    assert (training["data"], training["unknown"], training["source"]) == (0, 0, "apportioned")


def test_losses_and_both_signals_reach_a_whole_account_alone(store: Store) -> None:
    keep(store, said(100.0, 100.0), said(700.0, 700.0, provider="watttime", signal="marginal"))
    with store.write() as session:
        session.add(ProgressRow(job_id="tiny", at=T0 + HOUR, step=5, loss=3.25))
    site = Site.model_validate({"zones": {"DE": {"provider": "electricity_maps"}}})
    with store.read() as session:
        whole = account_of(session, site, session.get_one(Job, "tiny"), T0 + 2 * HOUR, whole=True)
    assert [(each.at, each.step, each.loss) for each in whole.losses] == [(T0 + HOUR, 5, 3.25)]
    assert (build(whole)["average_emissions_g"], build(whole)["marginal_emissions_g"]) == (
        pytest.approx(200.0),
        pytest.approx(1400.0),
    )
    assert account(store).losses == () and account(store).average == ()


def test_the_zone_figures_of_the_site_reach_the_account(store: Store) -> None:
    found = account(store, pue=1.3, wue_l_per_kwh=0.4, transfer_j_per_byte=2e-7, node_overhead_w=10).zones["DE"]
    assert (found.pue, found.wue_l_per_kwh, found.transfer_j_per_byte, found.node_overhead_w) == (1.3, 0.4, 2e-7, 10)


def test_a_host_that_says_nothing_after_its_segment_was_lost_died_with_its_meter(store: Store) -> None:
    site = Site.model_validate({"zones": {"DE": {"provider": "electricity_maps"}}})

    def unmetered_s() -> float:
        with store.read() as session:
            return add_up(
                account_of(session, site, session.get_one(Job, "tiny"), T0 + 9 * HOUR, whole=True)
            ).unmetered_s

    with store.write() as session:
        segment = session.get_one(Segment, "tiny-1")
        segment.ended, segment.ended_at = "lost", T0 + 2 * HOUR + timedelta(seconds=40)
    assert unmetered_s() == 40
    later = T0 + 3 * HOUR
    with store.write() as session:  # its spool is taken when the host is back, or its meter lived on
        idle = MeterRow("boot", "cpu", 7, "node", T0 + 2 * HOUR, later, 1.0, "estimated", "idle")
        facts.add_rows(session, [idle])
    assert unmetered_s() == 0
