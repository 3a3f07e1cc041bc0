"""Decisions as a table: what happens to one job at one moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.controller.decide import Case, End, Go, Running, Wait, decide
from orchestrator.plan.problem import Plan, PlannedSlot

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def slot(start: float, end: float, zone: str = "DE", workers: int = 2) -> PlannedSlot:
    return PlannedSlot(at(start), at(end), zone, workers)


def plan(*slots: PlannedSlot) -> Plan:
    finish = slots[-1].end if slots else T0
    return Plan("optimal", "measured", slots, finish, 1.0, 1.0, 2.0, reason="as planned")


CASE = Case(
    now=T0,
    wish="run",
    plan=plan(slot(0, 30), slot(90, 120)),
    blocked="",
    running=None,
    has_run=False,
    measured=True,
    last_zone=None,
    last_mode=None,
    last_ended=None,
    not_before=None,
    renew_within_s=3600,
    closes_at=None,
)
RUNNING = Running("DE", (2, None), "start")


def test_starts_where_the_plan_runs_now_and_ends_with_its_slot() -> None:
    assert decide(CASE) == Go("DE", (2, None), at(30), "paused", "start", "as planned")


def test_waits_until_the_next_planned_slot() -> None:
    assert decide(replace(CASE, now=at(40))) == Wait("waiting", "as planned", at(90))


def test_a_job_that_has_run_is_paused_while_it_waits() -> None:
    assert decide(replace(CASE, now=at(40), has_run=True)) == Wait("paused", "as planned", at(90))


def test_is_renewed_no_further_than_the_dead_mans_switch_allows() -> None:
    decision = decide(replace(CASE, renew_within_s=600))
    assert isinstance(decision, Go)
    assert (decision.run_until, decision.ends_as) == (at(10), "expired")


def test_the_last_slot_has_no_end_of_its_own() -> None:
    decision = decide(replace(CASE, now=at(100), running=RUNNING, has_run=True))
    assert isinstance(decision, Go)
    assert (decision.run_until, decision.ends_as, decision.start) == (at(160), "expired", None)


def test_pauses_when_the_planned_stretch_is_over() -> None:
    assert decide(replace(CASE, now=at(31), running=RUNNING)) == End("paused", "as planned")


@pytest.mark.parametrize(("following", "ends_as"), [(slot(0, 60, "FR"), "moved"), (slot(0, 60, "DE", 4), "resized")])
def test_a_plan_for_another_place_or_width_ends_the_segment(following: PlannedSlot, ends_as: str) -> None:
    decision = decide(replace(CASE, plan=plan(following), running=RUNNING))
    assert isinstance(decision, End)
    assert decision.ends_as == ends_as


def test_a_change_of_zone_without_a_gap_ends_the_slot_as_moved() -> None:
    decision = decide(replace(CASE, plan=plan(slot(0, 30), slot(30, 60, "FR")), running=RUNNING))
    assert isinstance(decision, Go)
    assert (decision.run_until, decision.ends_as) == (at(30), "moved")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "resume"),
        ({"last_ended": "lost"}, "retry"),
        ({"last_zone": "FR"}, "move"),
        ({"last_mode": (4, None)}, "resize"),
    ],
)
def test_a_later_start_says_why(change: dict[str, object], reason: str) -> None:
    before = replace(CASE, has_run=True, last_zone="DE", last_mode=(2, None), last_ended="paused")
    decision = decide(replace(before, **change))  # type: ignore[arg-type]
    assert isinstance(decision, Go)
    assert decision.start == reason


def test_an_unmeasured_job_is_calibrated_as_soon_as_its_window_is_open() -> None:
    unmeasured = replace(CASE, now=at(40), measured=False, to_measure=(4, None))
    decision = decide(unmeasured)
    assert isinstance(decision, Go)
    assert (decision.start, decision.mode) == ("calibrate", (4, None))
    assert isinstance(decide(replace(unmeasured, open=False)), Wait)


def test_a_calibration_goes_on_until_something_is_measured() -> None:
    calibrating = replace(CASE, now=at(40), measured=False, running=Running("DE", (2, None), "calibrate"))
    assert isinstance(decide(calibrating), Go)
    measured = replace(calibrating, measured=True, running=replace(calibrating.running, measured=True))
    assert decide(measured) == End("paused", "as planned")


def test_further_modes_are_measured_one_after_another_in_the_first_planned_hour() -> None:
    narrow = replace(CASE, to_measure=(1, None), has_run=True)
    assert isinstance(decide(replace(narrow, now=at(40))), Wait)
    started = decide(narrow)
    assert isinstance(started, Go)
    assert (started.start, started.mode) == ("calibrate", (1, None))
    running = Running("DE", (2, None), "calibrate", measured=True)
    assert decide(replace(narrow, running=running)) == End("resized", "measures 1 worker next")
    # A segment that runs by plan is not interrupted for it.
    assert isinstance(decide(replace(narrow, running=RUNNING)), Go)


def test_another_power_limit_is_another_segment() -> None:
    capped = PlannedSlot(at(0), at(30), "DE", 2, 300)
    decision = decide(replace(CASE, plan=plan(capped), running=RUNNING))
    assert decision == End("resized", "goes on with 2 workers at 300 W per GPU: as planned")


def test_ends_before_the_window_closes() -> None:
    decision = decide(replace(CASE, closes_at=at(8)))
    assert isinstance(decision, Go)
    assert (decision.run_until, decision.ends_as) == (at(8), "window")
    closed = decide(replace(CASE, closes_at=None, open=False, running=RUNNING))
    assert closed == End("window", "its window has closed")


def test_does_what_the_user_asks_whatever_the_plan_says() -> None:
    assert decide(replace(CASE, wish="hold", running=RUNNING)) == End("paused", "pausing, as the user asked")
    held = decide(replace(CASE, wish="hold"))
    assert isinstance(held, Wait) and held.state == "paused"
    assert decide(replace(CASE, wish="cancel", running=RUNNING)) == End("paused", "being cancelled")
    assert decide(replace(CASE, wish="cancel")) == Wait("cancelled", "cancelled by the user")


def test_a_running_job_goes_on_when_no_plan_can_be_made() -> None:
    decision = decide(replace(CASE, plan=None, blocked="waits for a forecast", running=RUNNING))
    assert isinstance(decision, Go)
    assert decision.ends_as == "expired"


def test_a_job_that_writes_its_last_checkpoint_is_let_finish() -> None:
    decision = decide(replace(CASE, now=at(40), running=RUNNING, finishing=True))
    assert isinstance(decision, Go)
    assert decision.start is None


def test_back_off_is_waited_for() -> None:
    decision = decide(replace(CASE, not_before=at(5)))
    assert isinstance(decision, Wait)
    assert decision.until == at(5)


@pytest.mark.parametrize("minutes", range(0, 125, 5))
def test_the_same_case_gives_the_same_decision(minutes: int) -> None:
    case = replace(CASE, now=at(minutes), running=RUNNING if minutes < 30 else None)
    assert decide(case) == decide(case)
