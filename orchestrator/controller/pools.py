"""What jobs may use of each zone, as limits on sums: all of it, one kind of GPU, nodes that hold whole workers.
In: the site, what the cluster shows, the shapes of the jobs' workers. Out: Limits by zone, and which jobs count.
`share` makes fleets where jobs want more than a limit has; `consider` asks how wide a job fits at all.

A worker takes its GPUs from one node, and of one kind where its job names it. Jobs fit on the nodes where those of each
shape fit beside all wider ones, in all and by kind. That is exact while each shape is a multiple of the next (1, 2, 4,
8), nodes hold one kind, and those that name none take no other's; else more may be planned than fits at a moment, and a
segment then waits for room. Nor are segments moved to make nodes whole again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jobs.spec import JobSpec, Workers
from orchestrator.controller.room import lacking
from orchestrator.site import Site
from orchestrator.store.fleets import Alike, Kind, Shown

CPU_PARTS = 1000
"""CPUs are counted in thousandths, for a worker may take a part of one."""


class Taker(Protocol):
    """A job that takes room."""

    @property
    def spec(self) -> JobSpec:
        """Its spec."""

    def each(self, kind: Kind) -> int:
        """What one worker takes, in GPUs or thousandths of CPUs."""

    def most(self, zone: str, kind: Kind) -> int:
        """What it takes in a zone at its widest."""


@dataclass(frozen=True)
class Limit:
    """What there is in a zone for some of the jobs, all together."""

    most: int | None
    """GPUs, or thousandths of CPUs; None is no limit."""
    gpu_kind: str | None = None
    """It counts those that name this kind; None counts all."""
    least: int = 0
    """It counts those whose workers take so much each, or more."""

    @property
    def name(self) -> str:
        """A name that no other limit of the zone has; empty for the zone's own."""
        return f"{self.gpu_kind or ''}/{self.least}" if self.gpu_kind or self.least else ""

    def counts(self, job: Taker, kind: Kind) -> bool:
        """Whether what the job takes counts against it."""
        return job.each(kind) >= self.least and (self.gpu_kind is None or job.spec.workers.gpu_kind == self.gpu_kind)


def limits(site: Site, shown: Mapping[str, Shown], kind: Kind, jobs: Iterable[Taker]) -> dict[str, tuple[Limit, ...]]:
    """By zone what the cluster shows for such jobs, else what the site declares, else no limit; its own one first.

    A zone without nodes has nothing, where others have some: nothing can start there now.
    """
    jobs = [job for job in jobs if job.each(kind) > 0]
    found: dict[str, tuple[Limit, ...]] = {}
    for zone, declared in site.zones.items():
        there = shown.get(zone)
        if there is not None and there.nodes:
            found[zone] = _limits(there.nodes, kind, [job for job in jobs if job.most(zone, kind) > 0])
        elif there is not None:
            found[zone] = (Limit(int(there.gpus) if kind == "gpus" else int(there.cpus * CPU_PARTS)),)
        else:
            found[zone] = (Limit(0 if shown else declared.gpus if kind == "gpus" else None),)
    return found


def ever(zones: Sequence[str], each: Workers, shown: Mapping[str, Shown]) -> dict[str, int]:
    """How many such workers the nodes of the zones hold when they are empty; zones without known nodes are absent."""
    return {
        zone: sum(alike.number * _workers(alike, each) for alike in shown[zone].nodes)
        for zone in zones
        if zone in shown and shown[zone].nodes
    }


def never(zones: Sequence[str], spec: JobSpec, shown: Mapping[str, Shown]) -> str:
    """Why the zones' nodes, even empty, could not hold the job at its narrowest; empty where one's could."""
    fewest, most = min(spec.worker_counts()), ever(zones, spec.workers, shown)
    if any(most.get(zone, fewest) >= fewest for zone in zones):
        return ""
    return "; ".join(lacking(zone, fewest, spec.workers, most[zone]) for zone in zones)


def _limits(nodes: Sequence[Alike], kind: Kind, jobs: Sequence[Taker]) -> tuple[Limit, ...]:
    kinds = {job.spec.workers.gpu_kind for job in jobs} - {None} if kind == "gpus" else set()
    found: list[Limit] = []
    for gpu_kind in (None, *sorted(filter(None, kinds))):
        own = [job for job in jobs if gpu_kind is None or job.spec.workers.gpu_kind == gpu_kind]
        fitting = [alike for alike in nodes if gpu_kind is None or alike.gpu_kind == gpu_kind]
        for least in sorted({job.each(kind) for job in own}):
            shapes = {(job.each(kind), job.spec.workers.cpus) for job in own if job.each(kind) >= least}
            most = sum(alike.number * _usable(alike, kind, shapes) for alike in fitting)
            # One that has no less than another that counts the same jobs, and more, says nothing.
            if not found:
                found.append(Limit(most))
            elif not any(_within(gpu_kind, least, other) and (other.most or 0) <= most for other in found):
                found.append(Limit(most, gpu_kind, least))
    return tuple(found) or (Limit(_all(nodes, kind)),)


def _within(gpu_kind: str | None, least: int, other: Limit) -> bool:
    return other.least <= least and other.gpu_kind in (None, gpu_kind)


def _all(nodes: Sequence[Alike], kind: Kind) -> int:
    return int(sum(alike.number * (alike.gpus if kind == "gpus" else alike.cpus * CPU_PARTS) for alike in nodes))


def _usable(alike: Alike, kind: Kind, shapes: Collection[tuple[int, float]]) -> int:
    """What whole workers that take so much each, and so many CPUs, can take of one node."""
    least = min(each for each, _ in shapes)
    if kind == "cpus":
        there = int(alike.cpus * CPU_PARTS + 1e-6)
    else:
        there = int(min(alike.gpus, alike.cpus / min(cpus / each for each, cpus in shapes)) + 1e-9)
    if any(each % least for each, _ in shapes):
        return there if there >= least else 0
    return there // least * least


def _workers(alike: Alike, each: Workers) -> int:
    """How many workers such a node holds when it is empty."""
    if each.gpu_kind is not None and alike.gpu_kind != each.gpu_kind:
        return 0
    by_cpu = int(alike.all_cpus / each.cpus + 1e-9)
    return min(by_cpu, int(alike.all_gpus / each.gpus + 1e-9)) if each.gpus else by_cpu
