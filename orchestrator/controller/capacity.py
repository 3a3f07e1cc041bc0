"""What each zone's nodes have for jobs of lowtide: what there is, less what others hold.
In: the nodes as the cluster shows them, and the segments that run. Out: GPUs and CPUs by zone and node, for the store.
The controller notes it in each pass that has attached to the cluster; jobs that share room are planned by it.

The cluster does not say whose a node's GPUs are. What segments hold is laid onto what is in use as they would be placed,
wide workers first; the rest is others'.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cluster.api import Node
from jobs.spec import Workers
from orchestrator.controller.look import Look
from orchestrator.controller.room import Place, Places
from orchestrator.store.fleets import Alike, Shown

_Held = tuple[float, float]
"""GPUs and CPUs."""


class Capacity:
    """What was shown; others hold something where two passes in a row show it, for segments come and go meanwhile."""

    def __init__(self) -> None:
        self._others: dict[str, _Held] = {}

    def read(self, nodes: Sequence[Node], seen: Look) -> dict[str, Shown]:
        """What the zones have for jobs."""
        ours, found, others = _ours(seen), dict[str, Shown](), dict[str, _Held]()
        for zone, there in _by_zone(nodes).items():
            now = _held_by_others(there, ours.get(zone, []))
            others |= now
            steady = {name: _less(held, self._others.get(name, held)) for name, held in now.items()}
            found[zone] = _shown(there, steady)
        self._others = others
        return found


def _held_by_others(there: Sequence[Node], ours: Iterable[tuple[int, Workers]]) -> dict[str, _Held]:
    """By node what is in use and no segment's."""
    used = Places([Place(node, node.gpus - node.free_gpus, node.cpus - node.free_cpus) for node in there])
    for workers, each in sorted(ours, key=lambda taken: (-taken[1].gpus, -taken[1].cpus)):
        used.take(min(workers, used.fits(each)), each)
    return {place.node.node_id: (max(0.0, place.gpus), max(0.0, place.cpus)) for place in used.nodes}


def _shown(there: Sequence[Node], others: Mapping[str, _Held]) -> Shown:
    alike = Counter[Alike]()
    for node in there:
        gpus, cpus = others[node.node_id]
        has = round(node.gpus - gpus, 3), round(node.cpus - cpus, 3)
        alike[Alike(node.gpu_kind, *has, node.gpus, node.cpus)] += 1
    counted = sorted(alike.items(), key=repr)
    return Shown(
        gpus=sum(each.gpus * count for each, count in counted),
        cpus=sum(each.cpus * count for each, count in counted),
        nodes=tuple(each._replace(count=count) for each, count in counted),
    )


def _less(first: _Held, second: _Held) -> _Held:
    return min(first[0], second[0]), min(first[1], second[1])


def _by_zone(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    found = defaultdict[str, list[Node]](list)
    for node in nodes:
        if node.zone is not None:
            found[node.zone].append(node)
    return found


def _ours(seen: Look) -> dict[str, list[tuple[int, Workers]]]:
    """What running segments hold, or are about to."""
    found = defaultdict[str, list[tuple[int, Workers]]](list)
    for job in seen.jobs:
        segment = seen.running(job.id)
        if segment is not None:
            found[segment.zone].append((segment.workers, seen.spec_of(job).workers))
    return found
