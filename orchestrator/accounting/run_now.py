"""The counterfactual that savings are measured against: the same work, begun at submission and never paused.
In: the job's Account; its own measured power and throughput. Out: Savings, or the reason why there are none yet.
The report shows it beside the ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import fsum

from cluster.api import MeterRow
from orchestrator.accounting.account import Account, SegmentFacts, own_rows
from orchestrator.accounting.charge import Curve
from orchestrator.accounting.ledger import Ledger, curves_of
from orchestrator.accounting.overhead import nodes_of, stays_of
from orchestrator.plan.problem import Mode

UNMETERED_AT_MOST = 0.01
"""Share of worker-seconds without a reading above which the job's grams are too low to compare with run-now's."""
KNOWN_AT_LEAST = 1 - 1e-6
"""Share of the energy that must have an intensity, for the job and for run-now alike; the rest is rounding."""


@dataclass(frozen=True, slots=True)
class RunNow:
    """Where, how wide and how long run-now would have run, in [start, end), and what it would have emitted."""

    zone: str
    workers: int
    start: datetime
    end: datetime
    energy_j: float
    operational_g: float
    embodied_g: float | None
    overhead_g: float = 0.0
    """Of the nodes' fans, network and disks, where the zone gives a figure."""

    @property
    def emissions_g(self) -> float:
        """Operational and, where the zone gives figures, overhead and embodied grams."""
        return self.operational_g + self.overhead_g + (self.embodied_g or 0.0)


@dataclass(frozen=True)
class Savings:
    """Run-now and what the job saved against it; `reason` says what is missing where one of them is None."""

    run_now: RunNow | None = None
    saved_g: float | None = None
    saved_percent: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Training as one segment or several of one width did it."""

    steps: float
    train_s: float
    step_s: float
    """A step's once warm, so that run-now pays for no second warm-up."""
    power_w: float
    gpus: int
    nodes: float = 0.0
    """Nodes whose overhead it carried, where it shared them in part."""


@dataclass(frozen=True, slots=True)
class _Around:
    """What an undisturbed run needs beside its steps: a start, a warm-up, evaluation, its own checkpoints, a stop."""

    start_s: float
    start_j: float
    warm_up_s: float
    other_s: float
    other_j: float


def savings(facts: Account, ledger: Ledger) -> Savings:
    """Run-now for the steps done so far, and the difference to what the job really emitted."""
    rows = _driver_in_training(own_rows(facts))
    stays = stays_of(facts)
    measured = {
        s.segment_id: replace(m, nodes=nodes_of(stays, s, facts))
        for s in facts.segments
        if (m := _measured(s, _of(rows, s))) is not None
    }
    work = _metered_steps(facts, rows, measured)
    if not measured or work <= 0:
        return Savings(reason="no training step has been metered yet")
    base, reason = _least(facts, measured, work, _around(facts, rows, measured))
    if base is None:
        return Savings(reason=reason)
    reason = _why_not_compared(ledger)
    actual_g = ledger.emissions_g
    if reason or actual_g is None:
        return Savings(base, reason=reason)
    saved_g = base.emissions_g - actual_g
    return Savings(base, saved_g, 100.0 * saved_g / base.emissions_g if base.emissions_g else None)


def _why_not_compared(ledger: Ledger) -> str:
    """Why the job's own grams are too low to be compared; empty where they are complete."""
    if ledger.total.known_j < ledger.total.energy_j * KNOWN_AT_LEAST:
        return f"only {ledger.coverage_percent:.1f} % of the job's energy has an intensity"
    if ledger.unmetered_s > UNMETERED_AT_MOST * (ledger.metered_s + ledger.unmetered_s):
        return f"{ledger.unmetered_s:.0f} worker-seconds were not metered"
    return ""


def _of(rows: Iterable[MeterRow], segment: SegmentFacts) -> list[MeterRow]:
    return [row for row in rows if row.segment_id == segment.segment_id]


def _length_s(row: MeterRow) -> float:
    return max(0.0, (row.end - row.start).total_seconds())


def _driver_in_training(rows: Sequence[MeterRow]) -> list[MeterRow]:
    """The rows, with the driver's (rank -1) from the first training on in phase train: run-now has a driver too.

    The driver marks no phases of its own between its start and its stop.
    """
    trains: dict[str | None, datetime] = {}
    for row in rows:
        if row.phase == "train":
            trains.setdefault(row.segment_id, row.start)
    return [
        replace(row, phase="train")
        if row.rank == -1 and row.phase == "start" and row.segment_id in trains and row.start >= trains[row.segment_id]
        else row
        for row in rows
    ]


def _longest_s(rows: Iterable[MeterRow]) -> float:
    """Seconds of the worker that has most of these rows: workers run side by side, so their times do not add up."""
    by_device: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.rank == -1:
            continue
        by_device[(row.host_boot, row.device)].append(_length_s(row))
    return max((fsum(lengths) for lengths in by_device.values()), default=0.0)


def _measured(segment: SegmentFacts, rows: Sequence[MeterRow]) -> _Measured | None:
    """Steps, seconds and watts of a segment's training; None where it trained or was metered too little to tell.

    Watts are each device's joules over its own metered seconds, summed; seconds are the meters' or, where those lag
    behind or have holes, the workers' own.
    """
    steps = segment.end_step - segment.start_step
    train = [row for row in rows if row.phase == "train" and row.energy_j is not None and _length_s(row) > 0]
    devices: dict[tuple[str, str, int | None], list[MeterRow]] = defaultdict(list)
    for row in train:
        devices[(row.host_boot, row.device, row.rank)].append(row)
    train_s = max(_longest_s(train), segment.trained_s or 0.0)
    if steps <= 0 or train_s <= 0:
        return None
    warm = segment.first_step_s is not None and steps > 1 and segment.first_step_s < train_s
    step_s = (train_s - (segment.first_step_s or 0.0)) / (steps - 1) if warm else train_s / steps
    power_w = fsum(fsum(r.energy_j or 0.0 for r in own) / fsum(map(_length_s, own)) for own in devices.values())
    return _Measured(steps, train_s, min(step_s, train_s / steps), power_w, segment.gpus)


def _pooled(parts: Sequence[_Measured]) -> _Measured:
    train_s = fsum(part.train_s for part in parts)
    steps = fsum(part.steps for part in parts)
    step_s = fsum(part.step_s * part.steps for part in parts) / steps
    power_w = fsum(part.power_w * part.train_s for part in parts) / train_s
    nodes = fsum(part.nodes * part.train_s for part in parts) / train_s
    return _Measured(steps, train_s, step_s, power_w, max(part.gpus for part in parts), nodes)


def _metered_steps(facts: Account, rows: Sequence[MeterRow], measured: Mapping[str, _Measured]) -> float:
    """The job's steps less those of the running segment whose energy is still on its way from the meters."""
    steps = float(facts.step)
    for segment in facts.segments:
        if segment.ended_at is None:
            done = max(0, min(facts.step, segment.end_step) - segment.start_step)
            own = measured.get(segment.segment_id)
            metered_s = _longest_s(row for row in _of(rows, segment) if row.phase == "train")
            steps -= done if own is None else done * max(0.0, 1 - metered_s / own.train_s)
    return steps


def _around(facts: Account, rows: Sequence[MeterRow], measured: Mapping[str, _Measured]) -> _Around:
    """One start and warm-up, every evaluation, the checkpoints that no pause asked for, the stop of a finished job.

    Run-now would have had them too: without them a job that never paused would seem to emit more than itself.
    """
    start_s = start_j = warm_up_s = 0.0
    started = False
    other_s: list[float] = []
    other: list[MeterRow] = []
    for segment in sorted(facts.segments, key=lambda segment: segment.n):
        own = _of(rows, segment)
        first_train = min((row.start for row in own if row.phase == "train"), default=None)
        trained = measured.get(segment.segment_id)
        if first_train is not None and trained is not None and not started:
            started = True
            warm_up_s = trained.train_s - trained.step_s * trained.steps
            start_s = max(0.0, (first_train - segment.started_at).total_seconds())
            start_j = fsum(row.energy_j or 0.0 for row in own if row.phase == "start")
        kept = [row for row in own if row.phase == "evaluate"] + _own_checkpoints(segment, own)
        other_s.append(_longest_s(kept))
        if segment.ended == "done" and segment.ended_at is not None:
            busy = max((row.end for row in own if row.phase in ("train", "evaluate", "checkpoint")), default=None)
            kept += [row for row in own if row.phase == "stop"]
            other_s.append(max(0.0, (segment.ended_at - busy).total_seconds()) if busy else 0.0)
        other += kept
    return _Around(start_s, start_j, warm_up_s, fsum(other_s), fsum(row.energy_j or 0.0 for row in other))


def _own_checkpoints(segment: SegmentFacts, rows: Sequence[MeterRow]) -> list[MeterRow]:
    """The rows of checkpoints, without the last one of a segment that was stopped before the work was done."""
    saving = [row for row in rows if row.phase == "checkpoint"]
    if segment.ended in (None, "done", "failed", "lost"):
        return saving
    last_train = max((row.end for row in rows if row.phase == "train"), default=None)
    return [row for row in saving if last_train is not None and row.start < last_train]


def _least(
    facts: Account, measured: Mapping[str, _Measured], work: float, around: _Around
) -> tuple[RunNow | None, str]:
    """The candidate that emits least, of every allowed zone and measured mode; none where one cannot be priced.

    A zone whose intensity is not known might have been the cleanest, so leaving it out would flatter the job.
    """
    by_mode: dict[Mode, list[_Measured]] = defaultdict(list)
    by_place: dict[tuple[str, Mode], list[_Measured]] = defaultdict(list)
    for segment in facts.segments:
        if segment.segment_id in measured:
            mode = (segment.workers, segment.power_limit_w)
            by_mode[mode].append(measured[segment.segment_id])
            by_place[segment.zone, mode].append(measured[segment.segment_id])
    curves = curves_of(facts)
    if not _comparable(facts, curves):
        return None, "its zones are charged by average and by marginal intensities, which are never compared"
    candidates: list[RunNow] = []
    for zone in facts.allowed:
        if zone not in facts.zones:
            return None, f"the site does not describe zone {zone} any more"
        for mode, parts in by_mode.items():
            point = _pooled(by_place.get((zone, mode), parts))
            candidate = _candidate(facts, zone, mode[0], point, work, around, curves[zone])
            if candidate is None:
                return None, f"the intensity of {zone} is not known for all of run-now's time"
            candidates.append(candidate)
    return min(candidates, key=lambda candidate: candidate.emissions_g, default=None), "no zone is allowed"


def _comparable(facts: Account, curves: Mapping[str, Curve]) -> bool:
    """False where one zone is charged by average and another by marginal intensities, and neither may mix them."""
    strict = [zone for zone in facts.allowed if zone in facts.zones and not facts.zones[zone].mix]
    return len({piece.signal for zone in strict for piece in curves[zone].pieces if piece.g_per_kwh is not None}) < 2


def _candidate(
    facts: Account, zone: str, workers: int, point: _Measured, work: float, around: _Around, curve: Curve
) -> RunNow | None:
    """Run-now at one zone and width: its start, then the work; None where an intensity is missing."""
    train_s = work * point.step_s + around.warm_up_s
    begin = facts.submitted_at
    trains = begin + timedelta(seconds=around.start_s)
    end = trains + timedelta(seconds=train_s + around.other_s)
    zone_facts = facts.zones[zone]
    charges = (
        curve.charge(begin, trains, around.start_j, zone_facts.pue),
        curve.charge(trains, end, point.power_w * train_s + around.other_j, zone_facts.pue),
    )
    energy_j = fsum(charge.energy_j for charge in charges)
    if fsum(charge.known_j for charge in charges) < energy_j * KNOWN_AT_LEAST:
        return None
    rate = zone_facts.embodied_g_per_gpu_hour
    embodied_g = None if rate is None else rate * point.gpus * (end - begin).total_seconds() / 3600
    operational_g = fsum(charge.operational_g for charge in charges)
    overhead_j = (zone_facts.node_overhead_w or 0.0) * point.nodes * (end - begin).total_seconds()
    overhead_g = curve.charge(begin, end, overhead_j, zone_facts.pue).operational_g
    return RunNow(zone, workers, begin, end, energy_j, operational_g, embodied_g, overhead_g)
