"""Whether a segment fits on the cluster now, by zone, node and kind of GPU.
In: the nodes with what is free on them. Out: nothing where it fits and is taken, or the reason why not.
Several jobs that start in one pass share one Room, so that they do not all take the same GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cluster.api import Node
from jobs.spec import Workers


@dataclass
class _Free:
    gpus: float
    cpus: float
    gpu_kind: str | None


class Room:
    """What is free, read from the cluster when it is first asked for: a pass that starts nothing need not attach."""

    def __init__(self, nodes: Callable[[], Sequence[Node]]) -> None:
        self._read = nodes
        self._pending: list[tuple[str, int, Workers]] = []
        self._by_zone: dict[str, list[_Free]] | None = None

    def copy(self) -> Room:
        """The same room, of which something may be taken to see what is left. Raises Unavailable as `take` does."""
        other = Room(self._read)
        other._by_zone = {zone: [replace(node) for node in nodes] for zone, nodes in self._zones().items()}
        return other

    def pending(self, zone: str, workers: int, each: Workers) -> None:
        """A segment that was ordered and may not hold its workers yet: its room is no longer free."""
        self._pending.append((zone, workers, each))

    def fits(self, zone: str, each: Workers) -> int:
        """How many workers that take what `each` says fit in the zone now. Raises Unavailable as `take` does."""
        return sum(_fit(node, each) for node in self._zones().get(zone, ()))

    def take(self, zone: str, workers: int, each: Workers) -> str:
        """Take room for `workers`; returns why there is none, or an empty text.

        Raises Unavailable where the cluster does not answer.
        """
        nodes = self._zones().get(zone)
        if not nodes:
            return f"waits for a node with the label carbon-zone={zone}: the cluster has none now"
        if each.gpu_kind is not None and not any(node.gpu_kind == each.gpu_kind for node in nodes):
            return f"waits for a node in {zone} with GPUs of kind {each.gpu_kind}: the cluster has none now"
        fits = [_fit(node, each) for node in nodes]
        if sum(fits) < workers:
            what = f"{each.gpus} GPU" if each.gpus else f"{each.cpus:g} CPU"
            return f"waits for room in {zone}: {workers} workers of {what} needed, {sum(fits)} fit now"
        left = workers
        for node, fit in zip(nodes, fits, strict=True):
            placed = min(left, fit)
            node.gpus -= placed * each.gpus
            node.cpus -= placed * each.cpus
            left -= placed
        return ""

    def _zones(self) -> dict[str, list[_Free]]:
        if self._by_zone is None:
            self._by_zone = {}
            for node in self._read():
                if node.zone is not None:
                    free = _Free(node.free_gpus, node.free_cpus, node.gpu_kind)
                    self._by_zone.setdefault(node.zone, []).append(free)
            for zone, workers, each in self._pending:
                self.take(zone, workers, each)
        return self._by_zone


def _fit(node: _Free, each: Workers) -> int:
    if each.gpu_kind is not None and node.gpu_kind != each.gpu_kind:
        return 0
    by_cpu = int(node.cpus / each.cpus + 1e-9)
    return min(by_cpu, int(node.gpus / each.gpus + 1e-9)) if each.gpus else by_cpu
