"""What the GPUs that a job left drew while it was paused: the site's part of what a pause costs.
In: an Account's segments, and rows of its GPUs that were idle or other jobs'. Out: a Left, or why it is not known.
The report takes it from what the job saved: what the site saved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cluster.api import MeterRow
from orchestrator.accounting.account import Account, SegmentFacts, end_of, own_rows
from orchestrator.accounting.charge import Charge, Curve
from orchestrator.accounting.ledger import curves_of

TOLD_AT_LEAST = 0.99
"""Share of the GPU-seconds of the pauses that must have a row, idle or another job's; less is not known."""
KNOWN_AT_LEAST = 1 - 1e-6
ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Left:
    """Idle joules and grams of the GPUs between the job's segments; None with a reason where they are not known."""

    energy_j: float | None = 0.0
    emissions_g: float | None = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Pause:
    """The time after a segment until the job had GPUs again; the GPUs are those that the segment had held."""

    segment: SegmentFacts
    start: datetime
    end: datetime


def left_by(facts: Account) -> Left:
    """What the GPUs that the job had held drew idle in its pauses, by the intensities and PUE of their zone.

    A GPU that another job took is that job's. Waiting before the first segment is none of it: no GPU was held yet.
    """
    held: dict[str, set[str]] = defaultdict(set)
    for row in own_rows(facts):
        if row.uuid is not None and row.segment_id is not None:
            held[row.segment_id].add(row.uuid)
    by_uuid: dict[str, list[MeterRow]] = defaultdict(list)
    for row in {(row.host_boot, row.device, row.seq): row for row in facts.left_rows}.values():
        by_uuid[row.uuid or ""].append(row)
    curves = curves_of(facts)
    charges: list[Charge] = []
    for pause in _pauses(facts):
        if not pause.segment.gpus:
            continue
        uuids = held[pause.segment.segment_id]
        if not uuids or not _told(pause, [by_uuid[uuid] for uuid in uuids]):
            return Left(None, None, "the meters do not tell all that the GPUs it had left drew while it was paused")
        if pause.segment.zone not in facts.zones:
            return Left(None, None, f"the site does not describe zone {pause.segment.zone} any more")
        charges += [charge for uuid in uuids for charge in _idle(pause, by_uuid[uuid], facts, curves)]
    total = Charge.total(charges)
    if total.known_j < total.energy_j * KNOWN_AT_LEAST:
        return Left(total.energy_j, None, "the intensity of its pauses is not known")
    return Left(total.energy_j, total.operational_g)


def _pauses(facts: Account) -> Iterator[_Pause]:
    segments = sorted(facts.segments, key=lambda segment: segment.n)
    for before, after in pairwise(segments):
        if after.started_at > end_of(before, facts):
            yield _Pause(before, end_of(before, facts), after.started_at)
    last = segments[-1] if segments and facts.state not in ENDED else None
    if last is not None and last.ended_at is not None and facts.at > last.ended_at:
        yield _Pause(last, last.ended_at, facts.at)


def _within(pause: _Pause, row: MeterRow) -> float:
    """Seconds of the row in the pause."""
    return max(0.0, (min(row.end, pause.end) - max(row.start, pause.start)).total_seconds())


def _told(pause: _Pause, by_gpu: Sequence[Sequence[MeterRow]]) -> bool:
    """Whether every GPU has rows for nearly all of the pause; rows of two jobs that share a GPU lie on each other."""
    length_s = (pause.end - pause.start).total_seconds()
    return all(_covered_s(pause, rows) >= TOLD_AT_LEAST * length_s for rows in by_gpu)


def _covered_s(pause: _Pause, rows: Sequence[MeterRow]) -> float:
    covered_s, reached = 0.0, pause.start
    for row in sorted(rows, key=lambda row: row.start):
        start, end = max(row.start, reached), min(row.end, pause.end)
        if end > start and (row.energy_j is not None or row.job_id is not None):
            covered_s += (end - start).total_seconds()
            reached = end
    return covered_s


def _idle(pause: _Pause, rows: Sequence[MeterRow], facts: Account, curves: Mapping[str, Curve]) -> Iterator[Charge]:
    for row in rows:
        within_s, length_s = _within(pause, row), (row.end - row.start).total_seconds()
        if row.job_id is None and row.energy_j and within_s > 0:
            zone = pause.segment.zone
            start, end = max(row.start, pause.start), min(row.end, pause.end)
            yield curves[zone].charge(start, end, row.energy_j * within_s / length_s, facts.zones[zone].pue)
