"""What nodes draw beside their metered devices (fans, network, disks), charged to the jobs that are on them.
In: an Account's segments, hosts and neighbours there. Out: stretches on a host with the job's share.
`ledger` charges them by the zone's `node_overhead_w`; `run_now` takes as many nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import fsum

from orchestrator.accounting.account import Account, Neighbour, SegmentFacts, end_of, own_rows


@dataclass(frozen=True, slots=True)
class Stay:
    """A segment on a host in [start, end); `share` is 1 divided by the number of jobs there."""

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
    """Where the job was, host by host: each moment of a node is divided equally among the jobs on it.

    A job is on a node from the beginning to the end of a segment that has rows of that host.
    """
    segments = {segment.segment_id: segment for segment in facts.segments}
    places = {(row.segment_id, row.host_boot) for row in own_rows(facts) if row.segment_id in segments}
    by_host: dict[str, list[Neighbour]] = defaultdict(list)
    for neighbour in facts.neighbours:
        if neighbour.job_id != facts.job_id:
            by_host[neighbour.host_boot].append(neighbour)
    found: list[Stay] = []
    for segment_id, host_boot in sorted(places, key=str):
        segment = segments[segment_id or ""]
        found += _shared(segment, host_boot, end_of(segment, facts), by_host[host_boot])
    return found


def _shared(segment: SegmentFacts, host_boot: str, end: datetime, others: Sequence[Neighbour]) -> Iterable[Stay]:
    start = segment.started_at
    inner = {edge for other in others for edge in (other.start, other.end) if start < edge < end}
    for a, b in pairwise(sorted({start, end, *inner})):
        jobs = {other.job_id for other in others if other.start <= a and other.end >= b}
        yield Stay(segment, host_boot, a, b, 1 / (1 + len(jobs)))


def nodes_of(stays: Iterable[Stay], segment: SegmentFacts, facts: Account) -> float:
    """How many nodes' overhead a segment carried on average."""
    length_s = (end_of(segment, facts) - segment.started_at).total_seconds()
    return fsum(stay.node_s for stay in stays if stay.segment is segment) / length_s if length_s > 0 else 0.0
