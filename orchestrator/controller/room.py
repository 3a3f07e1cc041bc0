"""Whether a segment fits on the cluster now, by zone and node.
In: the nodes with what is free on them. Out: nothing where it fits and is taken, or the reason why not.
Several jobs that start in one pass share one Room, so that they do not all take the same GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.api import Node


@dataclass
class _Free:
    gpus: float
    cpus: float


class Room:
    """What is free, read from the cluster when it is first asked for: a pass that starts nothing need not attach."""

    def __init__(self, nodes: Callable[[], Sequence[Node]]) -> None:
        self._read = nodes
        self._pending: list[tuple[str, int, int, float]] = []
        self._by_zone: dict[str, list[_Free]] | None = None

    def pending(self, zone: str, workers: int, gpus: int, cpus: float) -> None:
        """A segment that was ordered and may not hold its workers yet: its room is no longer free."""
        self._pending.append((zone, workers, gpus, cpus))

    def fits(self, zone: str, gpus: int, cpus: float) -> int:
        """How many workers of `gpus` and `cpus` each fit in the zone now. Raises Unavailable as `take` does."""
        return sum(_fit(node, gpus, cpus) for node in self._zones().get(zone, ()))

    def take(self, zone: str, workers: int, gpus: int, cpus: float) -> str:
        """Take room for `workers` of `gpus` and `cpus` each; returns why there is none, or an empty text.

        Raises Unavailable where the cluster does not answer.
        """
        nodes = self._zones().get(zone)
        if not nodes:
            return f"waits for a node with the label carbon-zone={zone}: the cluster has none now"
        fits = [_fit(node, gpus, cpus) for node in nodes]
        if sum(fits) < workers:
            what = f"{gpus} GPU" if gpus else f"{cpus:g} CPU"
            return f"waits for room in {zone}: {workers} workers of {what} needed, {sum(fits)} fit now"
        left = workers
        for node, fit in zip(nodes, fits, strict=True):
            placed = min(left, fit)
            node.gpus -= placed * gpus
            node.cpus -= placed * cpus
            left -= placed
        return ""

    def _zones(self) -> dict[str, list[_Free]]:
        if self._by_zone is None:
            self._by_zone = {}
            for node in self._read():
                if node.zone is not None:
                    self._by_zone.setdefault(node.zone, []).append(_Free(node.free_gpus, node.free_cpus))
            for zone, workers, gpus, cpus in self._pending:
                self.take(zone, workers, gpus, cpus)
        return self._by_zone


def _fit(node: _Free, gpus: int, cpus: float) -> int:
    by_cpu = int(node.cpus / cpus + 1e-9)
    return min(by_cpu, int(node.gpus / gpus + 1e-9)) if gpus else by_cpu
