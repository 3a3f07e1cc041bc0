"""Run-now by hand: the fixed zone and measured width that emits least, started at submission.
In: accounts built here. Out: nothing.
The report's tests show the figures that come of it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.accounting.ledger import Account, ZoneFacts, add_up
from orchestrator.accounting.run_now import Savings, savings
from tests.unit.orchestrator.accounting.test_ledger import at, facts, intensity, row, segment


def compared(account: Account) -> Savings:
    return savings(account, add_up(account))


def paused_for_an_hour(**more) -> Account:
    """10 min of training at 600 W as the grid is clean, an hour after submission; 100 steps."""
    given = {
        "step": 100,
        "zones": {"DE": ZoneFacts(pue=1.0)},
        "allowed": ("DE",),
        "segments": [segment(1, "DE", 60, 70, ended="done", start_step=0, end_step=100)],
        "rows": [row(1, 60, 70, 360_000.0)],
        "intensities": [intensity("DE", 0, 60, 400.0), intensity("DE", 60, 120, 100.0)],
        **more,
    }
    return facts(**given)


def test_run_now_does_the_same_steps_at_submission():
    result = compared(paused_for_an_hour())
    assert result.run_now is not None
    assert (result.run_now.zone, result.run_now.workers) == ("DE", 1)
    assert (result.run_now.start, result.run_now.end) == (at(0), at(10))
    assert result.run_now.emissions_g == pytest.approx(0.1 * 400)  # 0.1 kWh
    assert result.saved_g == pytest.approx(30.0)
    assert result.saved_percent == pytest.approx(75.0)
    assert result.reason == ""


def test_run_now_is_the_cheapest_allowed_zone_and_measured_width():
    account = paused_for_an_hour(
        step=200,
        zones={"DE": ZoneFacts(pue=1.0), "FR": ZoneFacts(pue=1.5)},
        allowed=("DE", "FR"),
        segments=[
            segment(1, "DE", 60, 70, workers=1, ended="paused", start_step=0, end_step=100),
            segment(2, "DE", 80, 86, workers=2, ended="done", start_step=100, end_step=200),
        ],
        rows=[
            row(1, 60, 70, 360_000.0),  # one worker: 600 W, 10 steps a minute
            row(2, 80, 86, 162_000.0, "j-2"),  # two workers: 900 W together, 16.7 steps a minute
            row(3, 80, 86, 162_000.0, "j-2", device="gpu1", rank=1),
        ],
        intensities=[
            intensity("DE", 0, 60, 400.0),
            intensity("DE", 60, 120, 100.0),
            intensity("FR", 0, 120, 200.0),
        ],
    )
    run_now = compared(account).run_now
    assert run_now is not None
    # 200 steps take two workers 12 min at 900 W: 0.18 kWh (one worker: 0.2 kWh); FR: x 1.5 x 200 g = 54 g, DE: 72 g
    assert (run_now.zone, run_now.workers) == ("FR", 2)
    assert run_now.end == at(12)
    assert run_now.emissions_g == pytest.approx(54.0)


def test_a_job_that_started_at_once_and_never_paused_saved_nothing_and_lost_nothing():
    account = paused_for_an_hour(
        zones={"DE": ZoneFacts(pue=1.3, embodied_g_per_gpu_hour=26.0)},
        segments=[segment(1, "DE", 0, 20, ended="done", start_step=0, end_step=100, gpus=2)],
        rows=[
            row(1, 0, 4, 20_000.0, phase="start"),
            row(2, 4, 9, 180_000.0),
            row(3, 9, 10, 10_000.0, phase="checkpoint"),
            row(4, 10, 15, 180_000.0),
            row(5, 15, 17, 40_000.0, phase="evaluate"),
            row(6, 17, 18, 10_000.0, phase="checkpoint"),
            row(7, 18, 20, 5_000.0, phase="stop"),
        ],
        intensities=[intensity("DE", 0, 60, 250.0)],
    )
    result = compared(account)
    assert result.saved_g == pytest.approx(0.0, abs=1e-9)
    assert result.saved_percent == pytest.approx(0.0, abs=1e-9)


def test_the_driver_and_one_warm_up_are_run_now_s_too():
    once = paused_for_an_hour(
        segments=[segment(1, "DE", 0, 11, ended="done", end_step=101, trained_s=600.0, first_step_s=100.0)],
        step=101,
        rows=[
            row(1, 0, 1, 6_000.0, phase="start"),
            row(2, 1, 11, 360_000.0),
            row(3, 0, 1, 60.0, device="cpu", rank=-1, phase="start"),
            row(4, 1, 11, 600.0, device="cpu", rank=-1, phase="start"),
        ],
        intensities=[intensity("DE", 0, 60, 250.0)],
    )
    result = compared(once)
    assert result.run_now is not None
    assert result.run_now.energy_j == pytest.approx(366_660.0)
    assert result.saved_g == pytest.approx(0.0, abs=1e-9)
    # the same work in two halves warms up twice: run-now still does so once, 100 s + 100 steps of 5 s
    halves = replace(
        once,
        segments=[
            segment(1, "DE", 0, 7, ended="paused", end_step=51, trained_s=350.0, first_step_s=100.0),
            segment(2, "DE", 20, 28, ended="done", start_step=51, end_step=101, trained_s=345.0, first_step_s=100.0),
        ],
        rows=[row(1, 0, 350 / 60, 350 * 600.0), row(2, 20, 20 + 345 / 60, 345 * 600.0, "j-2")],
    )
    run_now = compared(halves).run_now
    assert run_now is not None
    assert run_now.energy_j == pytest.approx(600.0 * (100 + 100 * 5), rel=1e-6)


def test_pauses_are_charged_to_the_job_and_not_to_run_now():
    account = paused_for_an_hour(
        segments=[
            segment(1, "DE", 0, 6, ended="paused", start_step=0, end_step=50),
            segment(2, "DE", 30, 38, ended="done", start_step=50, end_step=100),
        ],
        rows=[
            row(1, 0, 5, 180_000.0),
            row(2, 5, 6, 6_000.0, phase="checkpoint"),
            row(3, 30, 31, 6_000.0, "j-2", phase="start"),
            row(4, 31, 33, 12_000.0, "j-2", phase="restore"),
            row(5, 33, 38, 180_000.0, "j-2"),
        ],
        intensities=[intensity("DE", 0, 60, 400.0)],
    )
    result = compared(account)
    assert result.saved_g == pytest.approx(-400 * 24_000 / 3_600_000)
    assert result.saved_percent is not None and result.saved_percent < 0


def test_steps_whose_energy_is_still_with_the_meters_do_not_count_for_run_now():
    account = paused_for_an_hour(
        at=at(70),
        segments=[segment(1, "DE", 60, None, start_step=0, end_step=100, trained_s=600.0)],
        rows=[row(1, 60, 65, 180_000.0)],
    )
    result = compared(account)
    assert result.run_now is not None
    assert result.run_now.end == at(5)
    assert result.saved_percent == pytest.approx(75.0)


def test_embodied_grams_count_on_both_sides():
    account = paused_for_an_hour(zones={"DE": ZoneFacts(1.0, embodied_g_per_gpu_hour=24.0)})
    account = replace(account, segments=[replace(account.segments[0], gpus=1)])
    result = compared(account)
    assert result.run_now is not None and result.run_now.embodied_g == pytest.approx(4.0)
    assert result.saved_g == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": 0, "segments": [], "rows": []}, "no training step has been metered yet"),
        ({"rows": [row(1, 60, 70, None)]}, "no training step has been metered yet"),
        (
            {"intensities": [intensity("DE", 5, 120, 100.0)]},
            "the intensity of DE is not known for all",
        ),
        (
            {"allowed": ("DE", "FR"), "zones": {"DE": ZoneFacts(), "FR": ZoneFacts()}},
            "the intensity of FR is not known",
        ),
        ({"allowed": ("DE", "XX")}, "the site does not describe zone XX"),
        ({"intensities": [intensity("DE", 0, 61, 400.0)]}, "only 10.0 % of the job's energy has an intensity"),
        ({"rows": [row(1, 60, 70, 360_000.0), row(2, 70, 71, None)]}, "60 worker-seconds were not metered"),
    ],
)
def test_nothing_is_claimed_before_it_can_be_measured(change: dict, reason: str):
    result = compared(paused_for_an_hour(**change))
    assert result.saved_g is None
    assert result.saved_percent is None
    assert result.reason.startswith(reason)
