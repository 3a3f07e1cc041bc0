"""What is refused at the door because of what the zones' providers give: kinds that differ, a share that none tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.spec import InputError, JobSpec
from orchestrator.admission import admit
from orchestrator.site import Site
from tests.unit.orchestrator.signal.plugin import plug_in

ZONES: dict[str, dict[str, Any]] = {
    "DE": {"provider": "average"},
    "FR": {"provider": ["average", "lifecycle"]},
    "ISO": {"provider": "marginal"},
    "PJM": {"plan_by": "marginal", "charge_by": "average"},
    "SEES": {"provider": "renewable"},
    "MIXED": {"provider": ["marginal", "average"], "mix": True},
    "ALSO": {"provider": ["average", "marginal"], "mix": True},
    "LOCKED": {"provider": "watttime_of_another_account"},
}


@pytest.fixture(autouse=True)
def plugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path / "own")


def admitted(folder: Path, zones: list[str], named: bool = True, **carbon: Any) -> None:
    site = Site.model_validate({"state": str(folder), "zones": {zone: ZONES[zone] for zone in zones}})
    spec = {
        "name": "tiny",
        "job": "train",
        "model": {"config": {"model_type": "llama"}},
        "data": {"files": ["x.txt"]},
        "training": {"steps": 10, "batch_size": 8},
        "carbon": {**({"zones": zones} if named else {}), **carbon},
    }
    admit(JobSpec.model_validate(spec), site, "tiny.yaml")


@pytest.mark.parametrize(
    "zones", [["DE", "FR"], ["ISO"], ["PJM"], ["DE", "SEES", "FR"], ["MIXED", "ALSO"], ["DE", "LOCKED"]]
)
@pytest.mark.parametrize("named", [True, False])
def test_zones_of_one_kind_may_be_chosen_among(tmp_path: Path, zones: list[str], named: bool) -> None:
    admitted(tmp_path, zones, named)


@pytest.mark.parametrize(
    ("zones", "named", "says"),
    [
        (
            ["DE", "ISO", "FR"],
            True,
            "they plan by different intensities, average (DE, FR) and marginal (ISO), which are never compared; name "
            "zones of one kind: [DE, FR] or [ISO]",
        ),
        (
            ["DE", "ISO"],
            False,
            "is missing, and the site's zones plan by different intensities, average (DE) and marginal (ISO), which "
            "are never compared; name zones of one kind: [DE] or [ISO]",
        ),
        (
            ["ISO", "PJM"],
            True,
            "they are charged by different intensities, marginal (ISO) and average (PJM), which are never compared; "
            "name zones of one kind: [ISO] or [PJM]",
        ),
        (
            ["DE", "MIXED"],
            True,
            "they plan by different intensities, average (DE) and average or marginal (MIXED), which are never "
            "compared; name zones of one kind: [DE] or [MIXED]",
        ),
    ],
)
def test_zones_of_different_kinds_are_refused(tmp_path: Path, zones: list[str], named: bool, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        admitted(tmp_path, zones, named)
    assert str(refusal.value) == f"tiny.yaml: carbon.zones: {says}"


@pytest.mark.parametrize("zones", [["SEES"], ["DE", "SEES"], ["LOCKED"]])
def test_a_share_may_be_asked_for_where_some_provider_may_tell_it(tmp_path: Path, zones: list[str]) -> None:
    admitted(tmp_path, zones, min_renewable_percent=60)


def test_a_share_that_no_provider_tells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        admitted(tmp_path, ["DE", "FR"], min_renewable_percent=60)
    assert str(refusal.value) == (
        "tiny.yaml: carbon.min_renewable_percent: no provider of DE, FR tells the renewable share; name a zone whose "
        "provider does, or remove it and use carbon.max_intensity"
    )
