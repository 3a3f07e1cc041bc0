"""From a stored job, the site, forecasts and measurements to the Problem that a planner solves.
In: a Framing of one job at one moment. Out: a Problem, or why there is none.
The dry run, the admission at submission and every pass of the controller frame alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.spec import JobSpec
from orchestrator.controller.learn import Learned, assumed_point
from orchestrator.controller.outlook import Outlook, of_one_kind
from orchestrator.plan.problem import Current, Problem
from orchestrator.plan.windows import windows
from orchestrator.site import Site

DEFAULT_FINISH_S = 24 * 3600.0
ASSUMED_LENGTH_S = 3600.0
"""Assumed length of a job that nobody has measured, where half the time to its deadline is not less."""


@dataclass(frozen=True)
class Framing:
    """One job at one moment."""

    spec: JobSpec
    submitted_at: datetime
    now: datetime
    step: int
    steps: int | None
    learned: Learned
    curves: Mapping[str, Outlook]
    """Of every zone that has a forecast."""
    zones: tuple[str, ...]
    """Zones where the job may run and the cluster has nodes."""
    current: Current | None
    has_run: bool
    last_zone: str | None
    """Where its newest checkpoint lies: to start elsewhere is a move."""
    window_end: datetime | None
    """End of a window that `lowtide window` opened: nothing is planned past it."""
    calibrates: bool = False
    """True where the segment that runs was started to measure: it may end at any time."""
    pauses: int = 0
    """How many pauses it has had; the end of a calibration is none."""
    emitted_g: float = 0.0
    """What it has emitted so far, where it has a budget."""


@dataclass(frozen=True)
class Opening:
    """When the job may run, whatever the forecasts say."""

    spans: tuple[tuple[datetime, datetime], ...] | None
    """Half-open; None is always."""
    open: bool
    closes_at: datetime | None
    """When a segment must be told to end, so that it is saved and gone when the window closes; None without one."""


def measured(framing: Framing) -> bool:
    """True where the width that the job runs at has been measured."""
    return framing.spec.width() in framing.learned.points


def deadline(framing: Framing) -> datetime:
    """`finish_by`, else twice the expected duration and at least 24 h after the submission."""
    given = framing.spec.finish_by_at(framing.submitted_at)
    if given is not None:
        return given
    point = framing.learned.points.get(framing.spec.width())
    expected_s = (framing.steps or 0) / point.steps_per_s if point is not None else 0.0
    return framing.submitted_at + timedelta(seconds=max(DEFAULT_FINISH_S, 2 * expected_s))


def opening(framing: Framing) -> Opening:
    """The job's own windows, within the one that `lowtide window` opened."""
    spans, now = _open_spans(framing), framing.now
    if spans is None:
        return Opening(None, True, None)
    span = next((s for s in spans if s[0] <= now < s[1]), None)
    if span is None:
        return Opening(spans, False, None)
    # How long the window is plays no part: a span begins at `now`, so a share of it would put the end off at each pass.
    closes_at = span[1] - timedelta(seconds=framing.learned.stop_s)
    return Opening(spans, now < closes_at, closes_at)


def frame(framing: Framing, spans: tuple[tuple[datetime, datetime], ...] | None, site: Site) -> Problem | str:
    """The Problem of this job now, or one line that says why it cannot be planned."""
    here = framing.current.zone if framing.current is not None else None
    usable = of_one_kind({zone: framing.curves[zone] for zone in framing.zones if zone in framing.curves}, here)
    if not framing.zones:
        return "waits for a node with the label carbon-zone of one of its zones"
    if not usable:
        return f"waits for a forecast of {', '.join(framing.zones)}: none has come yet"
    spec, now = framing.spec, framing.now
    due = deadline(framing)
    point = framing.learned.points.get(spec.width())
    work = float(framing.steps - framing.step) if framing.steps is not None else None
    if point is None or work is None:
        # The length is assumed, not the speed: 1 step is then the whole of the work.
        length_s = min(ASSUMED_LENGTH_S, max(60.0, (due - now).total_seconds() / 2))
        point, work = assumed_point(spec, spec.width(), 1.0 / length_s), 1.0
    oldest = now - timedelta(seconds=site.stale_for_s)
    return Problem(
        now=now,
        deadline=max(due, now),
        work_steps=work,
        zones={zone: ahead.option(point, site.zones[zone].pue, oldest) for zone, ahead in usable.items()},
        slot_s=site.slot_s,
        pause=framing.learned.pause,
        windows=spans,
        current=framing.current,
        # A first start takes its time as any other: a deadline that leaves it out is missed by it.
        started=measured(framing),
        last_zone=framing.last_zone,
        max_g_per_kwh=spec.carbon.max_intensity_g_per_kwh,
        min_renewable_percent=spec.carbon.min_renewable_percent,
        min_run_s=spec.carbon.min_run_s or 0.0,
        max_pauses=_pauses_left(framing),
        spare_s=framing.learned.variation * work / point.steps_per_s,
        budget_g=spec.carbon.budget_g - framing.emitted_g if spec.carbon.budget_g is not None else None,
        basis="measured" if measured(framing) else "assumed",
    )


def _pauses_left(framing: Framing) -> int | None:
    """How many pauses may still come. A running calibration may end besides: that counts as none."""
    most = framing.spec.carbon.max_pauses
    if most is None:
        return None
    return max(0, most - framing.pauses) + (framing.current is not None and framing.calibrates)


def _open_spans(framing: Framing) -> tuple[tuple[datetime, datetime], ...] | None:
    spans: tuple[tuple[datetime, datetime], ...] | None = None
    if framing.spec.carbon.windows:
        # Windows past the deadline count too: a job that is late goes on in the next one.
        until = max(deadline(framing), framing.now) + timedelta(days=8)
        spans = windows(framing.spec.carbon.windows, framing.now, until)
    if framing.window_end is not None:
        end = framing.window_end
        cut = spans if spans is not None else ((framing.now, end),)
        spans = tuple((start, min(stop, end)) for start, stop in cut if start < end)
    return spans
