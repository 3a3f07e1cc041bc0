"""Which providers a zone plans by and is charged by, and which of them do not go together."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jobs.spec import InputError, parse
from orchestrator.http.faults import SignalOutage
from orchestrator.signal.sources import Signals
from orchestrator.site import Site, ZoneSite
from tests.unit.orchestrator.signal import plugin
from tests.unit.orchestrator.signal.plugin import HOUR, plug_in

NOW = datetime(2026, 3, 1, 6, 20, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path / "own")


def signals(folder: Path, hold_off_s: float = 60.0, **zone: Any) -> Signals:
    return Signals({"DE": ZoneSite.model_validate(zone)}, {}, folder / "cache", hold_off_s=hold_off_s)


@pytest.mark.parametrize(
    ("zone", "plans_by", "charged_by"),
    [
        ({"provider": "average"}, "average", "average"),
        ({"provider": ["down", "average"]}, "average", "average"),
        ({"plan_by": "marginal", "charge_by": "average"}, "marginal", "average"),
        ({"provider": "average", "plan_by": "marginal"}, "marginal", "average"),
        ({"provider": "marginal", "charge_by": "average"}, "marginal", "average"),
        ({"plan_by": "marginal"}, "marginal", "marginal"),
        ({"charge_by": "average"}, "average", "average"),
        ({"plan_by": "marginal", "charge_by": ["down", "average"]}, "marginal", "average"),
    ],
)
def test_a_zone_plans_by_one_chain_and_is_charged_by_one(
    tmp_path: Path, zone: dict[str, Any], plans_by: str, charged_by: str
) -> None:
    found = signals(tmp_path, **zone)
    planned, charged = found.forecast("DE", NOW), found.forecast("DE", NOW, "charge")
    measured = found.measured("DE", NOW - HOUR, NOW)
    assert measured is not None
    assert (planned.provider, charged.provider, measured.provider) == (plans_by, charged_by, charged_by)
    assert (planned.signal, charged.signal, measured.signal) == (plans_by, charged_by, charged_by)
    assert ZoneSite.model_validate(zone).charges_apart == (plans_by != charged_by)


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        (
            {"provider": ["marginal", "average"]},
            "zones.DE.provider: marginal gives marginal and average gives average intensities, which do not mix; name "
            "one kind only, both by purpose (plan_by: marginal; charge_by: average), or write mix: true",
        ),
        ({"plan_by": ["marginal", "average"], "charge_by": "average"}, "zones.DE.plan_by: marginal gives marginal"),
        ({"provider": "marginal", "charge_by": ["average", "marginal"]}, "zones.DE.charge_by: average gives average"),
        (
            {"provider": ["lifecycle", "average", "direct"]},
            "zones.DE.provider: lifecycle gives lifecycle and direct gives direct emissions, which do not mix; name "
            "one kind only, or write mix: true",
        ),
    ],
)
def test_a_chain_that_mixes_is_refused_unless_the_zone_says_mix(
    tmp_path: Path, zone: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as refusal:
        signals(tmp_path, **zone).check()
    assert str(refusal.value).startswith(says)
    signals(tmp_path, **zone, mix=True).check()


def test_the_two_chains_of_a_zone_may_differ_in_kind(tmp_path: Path) -> None:
    found = signals(tmp_path, plan_by="marginal", charge_by="average")
    found.check()
    assert (found.chain("DE", "plan").signals, found.chain("DE", "charge").signals) == ({"marginal"}, {"average"})


@pytest.mark.parametrize(
    ("chain", "served_by"),
    [
        (["present", "average"], "average"),  # nothing beyond the present slot is no forecast
        (["present", "down"], "present"),  # and better than none
        (["present", "renewable", "average"], "renewable"),
        (["present"], "present"),
    ],
)
def test_a_forecast_of_the_present_slot_alone_gives_way_to_one_that_sees_ahead(
    tmp_path: Path, chain: list[str], served_by: str
) -> None:
    assert signals(tmp_path, provider=chain).forecast("DE", NOW).provider == served_by


def test_a_provider_that_is_down_is_not_asked_again_for_what_was_measured(tmp_path: Path) -> None:
    found = signals(tmp_path, provider=["down", "average"])
    found.forecast("DE", NOW)
    measured = found.measured("DE", NOW - HOUR, NOW)
    assert measured is not None and measured.provider == "average"
    with pytest.raises(SignalOutage, match="is down"):
        signals(tmp_path, provider="down").measured("DE", NOW - HOUR, NOW)


def test_a_provider_that_comes_back_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = signals(tmp_path, hold_off_s=0.0, provider="average")
    found.forecast("DE", NOW)
    with monkeypatch.context() as broken:
        broken.setattr(plugin, "OUT", {"average"})
        assert found.forecast("DE", NOW).stale is True
    assert found.forecast("DE", NOW).stale is False


def test_each_provider_has_its_own_name_for_the_zone(tmp_path: Path) -> None:
    named = {"marginal": "CAISO_NORTH", "average": "US-CAL-CISO"}
    found = signals(tmp_path, plan_by="marginal", charge_by="average", **{"as": named})
    links = (*found.chain("DE", "plan").links, *found.chain("DE", "charge").links)
    assert {link.name: link.zone_name for link in links} == named


@pytest.mark.parametrize(("provider", "has"), [("renewable", True), ("average", False), (["down", "renewable"], True)])
def test_a_chain_knows_whether_it_can_tell_the_renewable_share(tmp_path: Path, provider: Any, has: bool) -> None:
    assert signals(tmp_path, provider=provider).chain("DE").has_renewable is has


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ({"pue": 1.1}, "zones.DE: needs provider: who tells its intensity"),
        ({"provider": []}, "zones.DE: needs provider: who tells its intensity"),
        ({"plan_by": "csv", "charge_by": "average"}, "zones.DE: provider csv needs file"),
        ({"provider": "average", "as": {"uk": "GB"}}, "zones.DE: as: uk is no provider of the zone; it has average"),
    ],
)
def test_a_zone_without_a_provider_is_refused(zone: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse({"zones": {"DE": zone}}, Site, "lowtide.yaml")
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_answer_may_be_as_old_as_the_site_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site.model_validate({"zones": {"DE": {"provider": "average"}}, "stale_for": "2h", "state": str(tmp_path)})
    Signals.of(site).forecast("DE", NOW)
    monkeypatch.setattr(plugin, "OUT", {"average"})
    assert Signals.of(site).forecast("DE", NOW + timedelta(hours=2)).stale is True
    with pytest.raises(SignalOutage, match="is down"):
        Signals.of(site).forecast("DE", NOW + timedelta(hours=2, seconds=1))
