"""What nodes draw beside their metered devices (fans, network, disks), charged to the jobs that are on them.
In: an Account's segments and hosts, and what others drew there. Out: stretches on a host with the job's share.
`ledger` charges them by the zone's `node_overhead_w`; `run_now` takes as many nodes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import fsum

from orchestrator.accounting.account import Account, Beside, Neighbour, SegmentFacts, end_of, own_rows


@dataclass(frozen=True, slots=True)
class Stay:
    """A segment on a host in [start, end), and what share of the host's overhead it bears."""

    segment: SegmentFacts
    host_boot: str
    start: datetime
    end: datetime
    share: float

    @property
    def node_s(self) -> float:
        """Node-seconds that the job is charged."""
        return self.share * (self.end - self.start).total_seconds()


def stays_of(facts: Account) -> list[Stay]:
    """Where the job was, host by host: while the same jobs are on a node, its overhead goes as its joules go.

    A job is on a node from the beginning to the end of a segment that has rows of that host. What the node's meter
    charged to nobody bears its part, too, and that is the site's. Where one of the jobs has no reading, all jobs count
    alike.
    """
    segments = {segment.segment_id: segment for segment in facts.segments}
    places = {(row.segment_id, row.host_boot) for row in own_rows(facts) if row.segment_id in segments}
    by_host: dict[str, list[Neighbour]] = defaultdict(list)
    for neighbour in facts.neighbours:
        if neighbour.job_id != facts.job_id:
            by_host[neighbour.host_boot].append(neighbour)
    drawn: dict[str, list[Beside]] = defaultdict(list)
    for beside in facts.beside:
        drawn[beside.host_boot].append(beside)
    for row in own_rows(facts):
        if row.energy_j is not None:
            drawn[row.host_boot].append(Beside(row.host_boot, facts.job_id, row.start, row.energy_j))
    found: list[Stay] = []
    for segment_id, host_boot in sorted(places, key=str):
        segment = segments[segment_id or ""]
        stretches = _stretches(segment.started_at, end_of(segment, facts), by_host[host_boot])
        by_job = _by_job(stretches, drawn[host_boot])
        for (start, end), joules in zip(stretches, by_job, strict=True):
            jobs = {other.job_id for other in by_host[host_boot] if other.start <= start and other.end >= end}
            found.append(Stay(segment, host_boot, start, end, _share({facts.job_id, *jobs}, facts.job_id, joules)))
    return found


def _stretches(start: datetime, end: datetime, others: Iterable[Neighbour]) -> list[tuple[datetime, datetime]]:
    """[start, end) in pieces within which nobody comes or goes."""
    inner = {edge for other in others for edge in (other.start, other.end) if start < edge < end}
    return list(pairwise(sorted({start, end, *inner})))


def _by_job(stretches: Sequence[tuple[datetime, datetime]], drawn: Iterable[Beside]) -> list[dict[str | None, float]]:
    """Joules by job of each piece; a row belongs to the piece in which it begins."""
    found: list[dict[str | None, float]] = [defaultdict(float) for _ in stretches]
    starts = [start for start, _ in stretches]
    for each in drawn:
        index = bisect_right(starts, each.start) - 1
        if index >= 0 and each.start < stretches[index][1]:
            found[index][each.job_id] += each.energy_j
    return found


def _share(jobs: Set[str], job_id: str, joules: Mapping[str | None, float]) -> float:
    known = all(job in joules for job in jobs) and fsum(joules.values()) > 0
    return joules[job_id] / fsum(joules.values()) if known else 1 / len(jobs)


def nodes_of(stays: Iterable[Stay], segment: SegmentFacts, facts: Account) -> float:
    """How many nodes' overhead a segment carried on average."""
    length_s = (end_of(segment, facts) - segment.started_at).total_seconds()
    return fsum(stay.node_s for stay in stays if stay.segment is segment) / length_s if length_s > 0 else 0.0
