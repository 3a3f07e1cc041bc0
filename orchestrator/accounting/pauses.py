"""What starting and stopping took, part by part: the price of every pause, as it was measured.
In: an Account, whose segments told the seconds of their parts. Out: means over the segments, which sum to the whole.
The report shows them; the controller plans with the same seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

from orchestrator.accounting.account import Account

STOP_PARTS = ("step_end", "checkpoint", "publish", "mirror", "end")
"""From the wish to the end of the segment, in order; the workers tell seconds of them."""
_BETWEEN = ("train", "copy", "evaluate", "export", "place")
"""What belongs to neither: the training itself, what saving held it up, what follows the last step, and waiting for
a place that others had taken."""


@dataclass(frozen=True)
class Took:
    """Seconds of one start, or one stop, in the mean of `count`."""

    count: int
    parts_s: Mapping[str, float]

    @property
    def mean_s(self) -> float:
        """All parts together."""
        return fsum(self.parts_s.values())


def starts(facts: Account) -> Took | None:
    """From a segment's submission to its first step done; None where none has told yet."""
    told = [_only(each.parts_s, starting=True) for each in facts.segments if each.first_step_s is not None]
    return _mean(told)


def stops(facts: Account) -> Took | None:
    """From the wish to stop, seen by the workers, to the segment's end; None where none was stopped."""
    halted = ("paused", "moved", "resized", "window", "expired")
    told = [_only(each.parts_s, starting=False) for each in facts.segments if each.parts_s and each.ended in halted]
    return _mean(told)


def stop_s(parts_s: Mapping[str, float]) -> float:
    """Seconds that stopping took of what one segment told."""
    return fsum(_only(parts_s, starting=False).values())


def _only(parts_s: Mapping[str, float], starting: bool) -> dict[str, float]:
    if not starting:
        return {part: parts_s[part] for part in STOP_PARTS if part in parts_s}
    other = {*STOP_PARTS, *_BETWEEN}
    return {part: took_s for part, took_s in parts_s.items() if part not in other}


def _mean(told: Iterable[Mapping[str, float]]) -> Took | None:
    found = [each for each in told if each]
    names = dict.fromkeys(part for each in found for part in each)
    if not found:
        return None
    return Took(len(found), {name: fsum(each.get(name, 0.0) for each in found) / len(found) for name in names})
