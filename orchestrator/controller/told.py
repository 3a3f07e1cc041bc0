"""What was measured of one kind of job, as far as it matters: figures move a little with every row that comes in.
In: what segments taught. Out: whether it is something else than before, and a digest that plans are marked with.
`look` marks plans with it, and sleeping jobs are woken by it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orchestrator.controller.learn import Learned

_SAME = 0.02
"""Figures within about 2 % of each other are the same."""


@dataclass(frozen=True)
class Told:
    """What was last told of a kind of job."""

    learned: Learned
    digest: str
    """Unchanged, a plan made from it stands."""

    @property
    def modes(self) -> Collection[object]:
        """The modes that have been measured."""
        return self.learned.points.keys()


def told(learned: Learned, before: Told | None = None) -> Told:
    """What is told now: the same as `before` while no figure has moved by more than 2 % since."""
    if before is not None and _alike(learned, before.learned):
        return before
    figures = [(name, _near(value)) for name, value in sorted(_figures(learned), key=repr)]
    return Told(learned, digest(figures))


def digest(value: object) -> str:
    """A short hash of a value made of plain values."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]


def _alike(one: Learned, other: Learned) -> bool:
    ours, theirs = dict(_figures(one)), dict(_figures(other))
    return ours.keys() == theirs.keys() and all(_close(value, theirs[name]) for name, value in ours.items())


def _figures(learned: Learned) -> Iterator[tuple[object, float]]:
    for zone, points in {"": learned.points, **learned.by_zone}.items():
        for mode, point in points.items():
            yield (zone, mode, "steps_per_s"), point.steps_per_s
            yield (zone, mode, "power_w"), point.power_w
    yield "resume_s", learned.pause.resume_s
    yield "move_s", learned.pause.move_s
    yield "stop_s", learned.stop_s
    yield "variation", 1 + learned.variation


def _close(one: float, other: float) -> bool:
    return one == other or (one > 0 and other > 0 and abs(math.log(one / other)) <= _SAME)


def _near(value: float) -> int | None:
    """Equal for most values that are that close to each other."""
    return round(math.log(value) / _SAME) if value > 0 else None
