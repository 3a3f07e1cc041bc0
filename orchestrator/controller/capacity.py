"""What each zone's nodes have for jobs of lowtide: what there is, less what others hold.
In: the nodes as the cluster shows them, and the segments that run. Out: GPUs and CPUs by zone and node, for the store.
The controller notes it in each pass that has attached to the cluster; jobs that share room are planned by it.

The cluster does not say whose a node's GPUs are. What segments hold is laid onto what is in use as they would be
placed, wide workers first; the rest is others'.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cluster.api import Node
from jobs.spec import Workers
from orchestrator.controller.look import Look
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


def _held_by_others(there: Sequence[Node], ours: Sequence[tuple[int, Workers]]) -> dict[str, _Held]:
    """By node what is in use and no segment's."""
    gpus = {node.node_id: node.gpus - node.free_gpus for node in there}
    cpus = {node.node_id: node.cpus - node.free_cpus for node in there}
    own_gpus = sum(workers * each.gpus for workers, each in ours)
    own_cpus = sum(workers * each.cpus for workers, each in ours)
    if sum(gpus.values()) <= own_gpus and sum(cpus.values()) <= own_cpus:
        return dict.fromkeys(gpus, (0.0, 0.0))
    alike = defaultdict[tuple[float, str | None], list[str]](list)
    for node in there:
        alike[gpus[node.node_id], node.gpu_kind].append(node.node_id)
    for workers, each in sorted(ours, key=lambda taken: -taken[1].gpus):
        for _ in range(workers if each.gpus else 0):
            fitting = [key for key, nodes in alike.items() if nodes and _holds(key, each)]
            if not fitting:
                break
            used, kind = min(fitting, key=lambda key: key[0])
            name = alike[used, kind].pop()
            alike[used - each.gpus, kind].append(name)
            gpus[name] -= each.gpus
            cpus[name] = max(0.0, cpus[name] - each.cpus)
    rest = sum(workers * each.cpus for workers, each in ours if not each.gpus)
    for name, used in cpus.items():  # whose they are matters little: a CPU is like another
        cpus[name] = max(0.0, used - rest)
        rest = max(0.0, rest - used)
    return {name: (max(0.0, gpus[name]), cpus[name]) for name in gpus}


def _holds(key: tuple[float, str | None], each: Workers) -> bool:
    used, kind = key
    return used >= each.gpus and each.gpu_kind in (None, kind)


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
        nodes=tuple(each._replace(number=count) for each, count in counted),
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
