"""What the report of an observing job says that a plan would have saved."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from cluster.api import MeterRow
from orchestrator.accounting.account import Account, Intensity, SegmentFacts, ZoneFacts
from orchestrator.plan import Observed, PlannedSlot
from orchestrator.report import as_json, report_of

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SEEN = Observed("measured", (PlannedSlot(T0 + 2 * HOUR, T0 + 3 * HOUR, "DE", 1),), 90.0, 3.6e6, 400.0, 3.6e6)
"""By the forecast 90 g in place of 400 g."""
DONE = Account(
    job_id="a",
    name="a",
    state="done",
    at=T0 + 4 * HOUR,
    submitted_at=T0,
    zones={"DE": ZoneFacts()},
    allowed=("DE",),
    step=3600,
    steps=3600,
    segments=[SegmentFacts("a-1", 1, "DE", 1, "start", T0, T0 + HOUR, "done", 0, 3600, trained_s=3600.0)],
    rows=[MeterRow("boot", "GPU-0", 1, "node", T0, T0 + HOUR, 3.6e6, "nvml-counter", "train", "a", "a-1", 0)],
    intensities=[Intensity("DE", T0 + n * HOUR, T0 + (n + 1) * HOUR, g) for n, g in enumerate([500.0, 400.0, 100.0])],
    observed=SEEN,
)


def test_a_job_that_is_done_is_compared_by_what_came() -> None:
    shown = as_json(report_of(DONE))["observed"]
    assert shown == {"emissions_g": pytest.approx(100.0), "saved_g": pytest.approx(400.0), "saved_percent": 80.0}


def test_the_joules_of_further_starts_count_against_the_plan() -> None:
    longer = replace(DONE, observed=replace(SEEN, energy_j=3.96e6))
    assert as_json(report_of(longer))["observed"]["emissions_g"] == pytest.approx(110.0)


@pytest.mark.parametrize("change", [{"state": "running"}, {"intensities": DONE.intensities[:2]}])
def test_until_then_and_without_intensities_the_forecast_speaks(change: dict[str, object]) -> None:
    found = report_of(replace(DONE, **change)).forgone  # type: ignore[arg-type]
    assert found is not None and found.is_forecast
    assert (found.emissions_g, found.saved_g) == (90.0, 310.0)


def test_other_policies_observe_nothing() -> None:
    assert as_json(report_of(replace(DONE, observed=None)))["observed"] is None
