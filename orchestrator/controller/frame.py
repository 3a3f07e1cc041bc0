"""From a stored job, the site, forecasts and measurements to the Problem that a planner solves.
In: a Framing of one job at one moment. Out: a Problem, or why there is none.
The dry run, the admission at submission and every pass of the controller frame alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jobs.spec import JobSpec
from orchestrator.controller.learn import Learned, assumed_point
from orchestrator.controller.outlook import Outlook, of_one_kind
from orchestrator.controller.points import points
from orchestrator.controller.points import to_measure as following
from orchestrator.plan.problem import Basis, Current, Mode, OperatingPoint, PauseCost, PlannedSlot, Problem
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
    modes: Mapping[str, tuple[Mode, ...]]
    """Worker counts and power limits that the job may run at, by zone where it may: see `modes_of`."""
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
    tried: frozenset[Mode] = frozenset()
    """Modes that it has run to measure them, whatever came of it."""

    @property
    def zones(self) -> tuple[str, ...]:
        """Zones where the job may run."""
        return tuple(self.modes)


@dataclass(frozen=True)
class Opening:
    """When the job may run, whatever the forecasts say."""

    spans: tuple[tuple[datetime, datetime], ...] | None
    """Half-open; None is always."""
    open: bool
    closes_at: datetime | None
    """When a segment must be told to end, so that it is saved and gone when the window closes; None without one."""


def modes_of(
    spec: JobSpec, site: Site, most: Mapping[str, int] | None = None, unlimited: bool = False
) -> dict[str, tuple[Mode, ...]]:
    """The modes that the job may run at by zone: those that fit the GPUs that the zone declares.

    `most` is how many workers the zones have room for now, where that is known; `unlimited` leaves power limits out,
    as where they were refused.
    """
    if unlimited:
        spec = spec.model_copy(update={"workers": spec.workers.model_copy(update={"power_limit_w": None})})
    fitting = {zone: spec.modes(site.zones[zone].gpus) for zone in site.zones_for(spec)}
    if most is not None:
        fitting = {
            zone: tuple(mode for mode in modes if mode[0] <= most.get(zone, mode[0])) for zone, modes in fitting.items()
        }
    return {zone: modes for zone, modes in fitting.items() if modes}


def measured(framing: Framing) -> bool:
    """True where a mode that the job may run at has been measured, so that there is something to plan by."""
    return any(mode in framing.learned.points for modes in framing.modes.values() for mode in modes)


def to_measure(framing: Framing, zone: str) -> Mode | None:
    """The mode that a segment in the zone shall measure before the job is run by plan; None where none is left."""
    modes = framing.modes.get(zone)
    return following(modes, framing.learned.points, framing.tried) if modes else None


def basis_of(framing: Framing, slots: Sequence[PlannedSlot]) -> Basis:
    """`measured` where the mode of every slot has been; `assumed` where one follows from others, or from nothing.

    Nobody knows the length of a job whose steps are not counted yet: it is assumed, however well its speed is known.
    """
    known = framing.steps is not None and all(slot.mode in framing.learned.points for slot in slots)
    return "measured" if known else "assumed"


def deadline(framing: Framing) -> datetime:
    """`finish_by`, else twice the expected duration and at least 24 h after the submission."""
    given = framing.spec.finish_by_at(framing.submitted_at)
    if given is not None:
        return given
    rates = [point.steps_per_s for options in _measured_points(framing).values() for point in options]
    expected_s = (framing.steps or 0) / max(rates) if rates else 0.0
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
    known = {zone: options for zone, options in _measured_points(framing).items() if zone in usable}
    work = float(framing.steps - framing.step) if framing.steps is not None else None
    if not known or work is None:
        # The length is assumed, not the speed: 1 step is then the whole of the work.
        length_s = min(ASSUMED_LENGTH_S, max(60.0, (due - now).total_seconds() / 2))
        known, work = {zone: (assumed_point(spec, framing.modes[zone][0], 1.0 / length_s),) for zone in usable}, 1.0
    fastest = max(point.steps_per_s for options in known.values() for point in options)
    oldest = now - timedelta(seconds=site.stale_for_s)
    return Problem(
        now=now,
        deadline=max(due, now),
        work_steps=work,
        zones={zone: usable[zone].option(options, site.zones[zone].pue, oldest) for zone, options in known.items()},
        slot_s=site.slot_s,
        pause=_pause(framing, site),
        windows=spans,
        current=framing.current,
        # A first start takes its time as any other: a deadline that leaves it out is missed by it.
        started=measured(framing),
        last_zone=framing.last_zone,
        max_g_per_kwh=spec.carbon.max_intensity_g_per_kwh,
        min_renewable_percent=spec.carbon.min_renewable_percent,
        min_run_s=spec.carbon.min_run_s or 0.0,
        max_pauses=_pauses_left(framing),
        spare_s=framing.learned.variation * work / fastest,
        budget_g=spec.carbon.budget_g - framing.emitted_g if spec.carbon.budget_g is not None else None,
        basis="measured" if measured(framing) and framing.steps is not None else "assumed",
    )


def _pause(framing: Framing, site: Site) -> PauseCost:
    """What was measured; of a move that nobody has measured, the checkpoint's size over the bandwidth of its zone."""
    pause, size_bytes = framing.learned.pause, framing.learned.checkpoint_bytes
    zone = framing.current.zone if framing.current is not None else framing.last_zone
    rate = site.zones[zone].bandwidth_mb_per_s if zone in site.zones else None
    if pause.move_s > 0 or size_bytes is None or zone is None or rate is None:
        return pause
    moves = any(site.places(zone, "")[0] not in site.places(other, "") for other in framing.zones)
    return replace(pause, move_s=size_bytes / (rate * 1e6)) if moves else pause


def _measured_points(framing: Framing) -> dict[str, tuple[OperatingPoint, ...]]:
    """By zone what was measured, or follows from it; zones of which nothing is known are absent."""
    learned = framing.learned
    found = {
        zone: points(modes, {**learned.points, **learned.by_zone.get(zone, {})})
        for zone, modes in framing.modes.items()
    }
    return {zone: options for zone, options in found.items() if options}


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
