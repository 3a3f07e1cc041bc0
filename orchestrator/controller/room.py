"""Whether a segment fits on the cluster now, by zone, node and kind of GPU.
In: the nodes with what is free on them. Out: nothing where it fits and is taken, or the reason why not.
Several jobs that start in one pass share one Room, so that they do not all take the same GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cluster.api import Node
from jobs.spec import Workers

_Shape = tuple[int, float, str | None]
"""GPUs, CPUs and the kind of GPU that one worker takes."""


@dataclass
class Place:
    """What is free on a node."""

    node: Node
    gpus: float
    cpus: float

    @property
    def gpu_kind(self) -> str | None:
        """The kind of its GPUs."""
        return self.node.gpu_kind


class Places:
    """A zone's nodes, and how many workers fit on each, by shape: a pass asks a thousand times."""

    def __init__(self, nodes: Sequence[Place]) -> None:
        self.nodes = nodes
        self._fits: dict[_Shape, list[int]] = {}
        self._sums: dict[_Shape, int] = {}

    def fits(self, each: Workers) -> int:
        """How many workers fit."""
        shape = _shape(each)
        if shape not in self._fits:
            self._fits[shape] = [_fit(node, shape) for node in self.nodes]
            self._sums[shape] = sum(self._fits[shape])
        return self._sums[shape]

    def take(self, workers: int, each: Workers) -> tuple[str, ...]:
        """Take room that there is, on as few nodes as possible; returns their ids."""
        left, fits, used = workers, self._fits[_shape(each)], list[str]()
        while left:
            # What fits on one node goes to the fullest: what is whole stays whole for who needs it.
            index = min(
                (index for index, fit in enumerate(fits) if fit),
                key=lambda index: (-min(left, fits[index]), *_spare(self.nodes[index], each)),
            )
            placed = min(left, fits[index])
            self.nodes[index].gpus -= placed * each.gpus
            self.nodes[index].cpus -= placed * each.cpus
            used.append(self.nodes[index].node.node_id)
            self._again(index)
            left -= placed
        return tuple(used)

    def _again(self, index: int) -> None:
        for shape, fits in self._fits.items():
            fit = _fit(self.nodes[index], shape)
            self._sums[shape] += fit - fits[index]
            fits[index] = fit


class Room:
    """What is free, read from the cluster when it is first asked for: a pass that starts nothing need not attach."""

    def __init__(self, nodes: Callable[[], Sequence[Node]]) -> None:
        self._read = nodes
        self._pending: list[tuple[str, int, Workers]] = []
        self._by_zone: dict[str, Places] | None = None

    def copy(self) -> Room:
        """The same room, of which something may be taken to see what is left. Raises Unavailable as `take` does."""
        other = Room(self._read)
        other._by_zone = {
            zone: Places([replace(node) for node in there.nodes]) for zone, there in self._zones().items()
        }
        return other

    def pending(self, zone: str, workers: int, each: Workers) -> None:
        """A segment that was ordered and may not hold its workers yet: its room is no longer free."""
        self._pending.append((zone, workers, each))

    def fits(self, zone: str, each: Workers) -> int:
        """How many workers that take what `each` says fit in the zone now. Raises Unavailable as `take` does."""
        there = self._zones().get(zone)
        return there.fits(each) if there is not None else 0

    def take(self, zone: str, workers: int, each: Workers) -> str:
        """Take room for `workers`; returns why there is none, or an empty text. Raises Unavailable as `place` does."""
        return self.place(zone, workers, each)[0]

    def place(self, zone: str, workers: int, each: Workers) -> tuple[str, tuple[str, ...]]:
        """Take room for `workers`; returns why there is none, or an empty text and the ids of the nodes.

        Raises Unavailable where the cluster does not answer.
        """
        there = self._zones().get(zone)
        why = self._full(zone, there, workers, each)
        return (why, ()) if there is None or why else ("", there.take(workers, each))

    def _full(self, zone: str, there: Places | None, workers: int, each: Workers) -> str:
        if there is None:
            return f"waits for a node with the label carbon-zone={zone}: the cluster has none now"
        if each.gpu_kind is not None and not any(node.gpu_kind == each.gpu_kind for node in there.nodes):
            return f"waits for a node in {zone} with GPUs of kind {each.gpu_kind}: the cluster has none now"
        fits = there.fits(each)
        if fits < workers:
            what = f"{each.gpus} GPU" if each.gpus else f"{each.cpus:g} CPU"
            ever = Places([Place(place.node, place.node.gpus, place.node.cpus) for place in there.nodes]).fits(each)
            if ever < workers:
                return lacking(zone, workers, each, ever)
            return f"waits for room in {zone}: {workers} workers of {what} needed, {fits} fit now"
        return ""

    def _zones(self) -> dict[str, Places]:
        if self._by_zone is None:
            found: dict[str, list[Place]] = {}
            for node in self._read():
                if node.zone is not None:
                    found.setdefault(node.zone, []).append(Place(node, node.free_gpus, node.free_cpus))
            self._by_zone = {zone: Places(nodes) for zone, nodes in found.items()}
            for zone, workers, each in self._pending:
                self.take(zone, workers, each)
        return self._by_zone


def lacking(zone: str, workers: int, each: Workers, ever: int) -> str:
    """Why a segment never fits on the nodes that a zone has: even empty they hold fewer workers."""
    what = f"{each.gpus} {each.gpu_kind or 'GPU'}" if each.gpus else f"{each.cpus:g} CPU"
    beside = f" and {each.cpus:g} CPU" if each.gpus else ""
    return (
        f"waits for larger nodes, or more, in {zone}: {workers} workers of {what}{beside} needed, "
        f"{ever} fit where all nodes are empty"
    )


def _shape(each: Workers) -> _Shape:
    return each.gpus, each.cpus, each.gpu_kind


def _spare(node: Place, each: Workers) -> tuple[bool, float]:
    """The less of it, the better the node: who needs no GPU leaves those who do their CPUs, too."""
    return (False, node.gpus) if each.gpus else (node.node.gpus > 0, node.cpus)


def _fit(node: Place, shape: _Shape) -> int:
    gpus, cpus, gpu_kind = shape
    if gpu_kind is not None and node.gpu_kind != gpu_kind:
        return 0
    by_cpu = int(node.cpus / cpus + 1e-9)
    return min(by_cpu, int(node.gpus / gpus + 1e-9)) if gpus else by_cpu
