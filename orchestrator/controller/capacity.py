"""What each zone's nodes have for jobs of lowtide: what there is, less what others hold.
In: the nodes as the cluster shows them, and the segments that run. Out: GPUs and CPUs by zone, for the store.
The controller notes it in each pass that has attached to the cluster; jobs that share room are planned by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from cluster.api import Node
from orchestrator.controller.look import Look
from orchestrator.store.fleets import Shown


class Capacity:
    """What was shown; others hold something where two passes in a row show it, for segments come and go meanwhile."""

    def __init__(self) -> None:
        self._others: dict[str, Shown] = {}

    def read(self, nodes: Sequence[Node], seen: Look) -> dict[str, Shown]:
        """What the zones have for jobs."""
        ours, found, others = _ours(seen), dict[str, Shown](), dict[str, Shown]()
        for zone, there in _by_zone(nodes).items():
            mine = ours.get(zone, Shown(0.0, 0.0))
            others[zone] = Shown(
                max(0.0, sum(node.gpus - node.free_gpus for node in there) - mine.gpus),
                max(0.0, sum(node.cpus - node.free_cpus for node in there) - mine.cpus),
            )
            before = self._others.get(zone, others[zone])
            found[zone] = Shown(
                sum(node.gpus for node in there) - min(before.gpus, others[zone].gpus),
                sum(node.cpus for node in there) - min(before.cpus, others[zone].cpus),
            )
        self._others = others
        return found


def _by_zone(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    found = defaultdict[str, list[Node]](list)
    for node in nodes:
        if node.zone is not None:
            found[node.zone].append(node)
    return found


def _ours(seen: Look) -> dict[str, Shown]:
    """What running segments hold, or are about to."""
    found = dict[str, Shown]()
    for job in seen.jobs:
        segment = seen.running(job.id)
        if segment is not None:
            cpus = segment.workers * float(job.spec.get("workers", {}).get("cpus", 1))
            before = found.get(segment.zone, Shown(0.0, 0.0))
            found[segment.zone] = Shown(before.gpus + segment.gpus, before.cpus + cpus)
    return found
