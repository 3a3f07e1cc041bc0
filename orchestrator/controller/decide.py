"""What should happen to one job now, as data: start here, go on until then, end, or wait for a reason.
In: a Case (wish, plan, running segment, time). Out: a Decision, which `write` makes orders of.
Pure: the same case gives the same decision, so a pass can be run twice, or finished by another controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.api import Ended, Reason
from jobs.spec import iso
from orchestrator.plan.problem import Mode, Plan, PlannedSlot


@dataclass(frozen=True)
class Running:
    """The job's segment that has not ended."""

    zone: str
    mode: Mode
    reason: str
    measured: bool = False
    """Whether its mode has been."""


@dataclass(frozen=True)
class Case:
    """One job at one moment."""

    now: datetime
    wish: str
    plan: Plan | None
    """None where nothing could be planned; `blocked` says why."""
    blocked: str
    running: Running | None
    has_run: bool
    measured: bool
    """True where speed and power come from measurement, so that no calibration is due."""
    last_zone: str | None
    last_mode: Mode | None
    last_ended: str | None
    not_before: datetime | None
    renew_within_s: float
    closes_at: datetime | None
    """End of the window that is open now (the job's own or the one of `lowtide window`); None without windows."""
    open: bool = True
    """False outside every window."""
    finishing: bool = False
    """True once every step is done and only the last checkpoint is being written."""
    blind: bool = False
    """True where what runs cannot save: no plan ends it, only its user, or its window."""
    retry: str = ""
    """Why it tries again, where it waits for that."""
    stuck: str = ""
    """Why what runs is to be killed; empty where it gets on."""
    to_measure: Mode | None = None
    """The mode that shall be measured before the job is run by plan; None where none is left."""


@dataclass(frozen=True)
class Go:
    """Train in this zone at this width until `run_until`, then end as `ends_as`.

    `start` is None where it runs already.
    """

    zone: str
    mode: Mode
    run_until: datetime
    ends_as: Ended
    start: Reason | None
    text: str


@dataclass(frozen=True)
class End:
    """End the running segment at its next step, with a checkpoint."""

    ends_as: Ended
    text: str


@dataclass(frozen=True)
class Wait:
    """Nothing runs; `state` is waiting, paused or cancelled."""

    state: str
    text: str
    until: datetime | None = None


@dataclass(frozen=True)
class Kill:
    """End the running segment without a checkpoint, for it does not answer any more; the job is retried."""

    text: str


Decision = Go | End | Kill | Wait


def decide(case: Case) -> Decision:
    """The one thing to do for this job now."""
    return _while_running(case, case.running) if case.running is not None else _while_idle(case)


def _while_running(case: Case, running: Running) -> Decision:
    if case.stuck:
        return Kill(case.stuck)
    if case.wish == "cancel":
        return End("paused", "being cancelled")
    if case.wish == "hold":
        return End("paused", "pausing, as the user asked")
    if not case.open:
        return End("window", "its window has closed")
    if case.blind:
        return _go(case, running.zone, running.mode, None, None, "runs to its end, for it never asks for a checkpoint")
    if case.finishing:
        return _go(case, running.zone, running.mode, None, None, "writes its last checkpoint")
    if running.reason == "calibrate" and not running.measured:
        return _go(case, running.zone, running.mode, None, None, "measures its speed and power")
    if case.plan is None:
        return _go(case, running.zone, running.mode, None, None, f"goes on: {case.blocked}")
    slot = case.plan.at(case.now)
    if slot is None:
        return End("paused", case.plan.reason)
    if slot.zone != running.zone:
        return End("moved", f"moves to {slot.zone}: {case.plan.reason}")
    if running.reason == "calibrate" and case.to_measure is not None:
        return End("resized", f"measures {words(case.to_measure)} next")
    if slot.mode != running.mode:
        return End("resized", f"goes on with {words(slot.mode)}: {case.plan.reason}")
    return _go(case, slot.zone, slot.mode, None, slot, case.plan.reason)


def words(mode: Mode) -> str:
    """A mode as people say it."""
    workers, limit_w = mode
    counted = f"{workers} worker{'s' if workers != 1 else ''}"
    return counted if limit_w is None else f"{counted} at {limit_w} W per GPU"


def _while_idle(case: Case) -> Decision:
    state = "paused" if case.has_run else "waiting"
    if case.wish == "cancel":
        return Wait("cancelled", "cancelled by the user")
    if case.wish == "hold":
        return Wait("paused", "paused by the user; `lowtide resume` lets it go on")
    if case.not_before is not None and case.now < case.not_before:
        text = f"{case.retry}, not before" if case.retry else "not before"
        return Wait(state, f"{text} {iso(case.not_before)}", case.not_before)
    if not case.open:
        return Wait(state, "waits for its next window")
    if case.plan is None:
        return Wait(state, case.blocked)
    slot = case.plan.at(case.now)
    first = slot or (case.plan.slots[0] if case.plan.slots else None)
    if case.to_measure is not None and first is not None and (slot is not None or not case.measured):
        # What is not measured at all is measured at once; further modes in the first hour that the plan would use.
        text = f"measures {words(case.to_measure)} before it is planned"
        return _go(case, first.zone, case.to_measure, "calibrate", None, text)
    if slot is None:
        following = next((s.start for s in case.plan.slots if s.start > case.now), None)
        return Wait(state, case.plan.reason, following)
    return _go(case, slot.zone, slot.mode, _why_started(case, slot), slot, case.plan.reason)


def _why_started(case: Case, slot: PlannedSlot) -> Reason:
    if not case.has_run:
        return "start"
    if case.last_ended in ("lost", "failed"):
        return "retry"
    if case.last_zone not in (None, slot.zone):
        return "move"
    return "resume" if case.last_mode in (None, slot.mode) else "resize"


def _go(case: Case, zone: str, mode: Mode, start: Reason | None, slot: PlannedSlot | None, text: str) -> Go:
    """Until the plan changes, the window closes, or nobody renews: whichever comes first names the end."""
    run_until, ends_as = case.now + timedelta(seconds=case.renew_within_s), _expired()
    if slot is not None and case.plan is not None and slot != case.plan.slots[-1] and slot.end <= run_until:
        # The last slot has no end of its own: the job ends when its work is done, however long that takes.
        run_until, ends_as = slot.end, _after(case.plan, slot)
    if case.closes_at is not None and case.closes_at <= run_until:
        run_until, ends_as = case.closes_at, "window"
    return Go(zone, mode, run_until, ends_as, start, text)


def _expired() -> Ended:
    return "expired"


def _after(plan: Plan, slot: PlannedSlot) -> Ended:
    """How the plan names the end of this slot: a pause, or a change of place or width without one."""
    following = next((s for s in plan.slots if s.start >= slot.end), None)
    if following is None or following.start > slot.end:
        return "paused"
    return "moved" if following.zone != slot.zone else "resized"
