"""The time of a pass: what can wait for the next pass yields to what cannot.
In: when a pass began. Out: whether there is time to plan another job, to look at more of those that wait, to add up.
The controller keeps one a pass; `consider` plans by it, and figures are made in what it leaves.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

PASS_S = 0.9
"""Seconds from a pass's beginning after which it plans and looks at no more jobs than it must."""
PLANNING_S = 0.3
"""Seconds of a pass for the planning of jobs that run, and as many for those that wait; the others keep their plans."""
LEAST_S = 0.1
"""So long a pass plans and looks, be it ever so late: everyone's turn comes."""


class Effort:
    """The time that one pass may still spend on some of its jobs."""

    def __init__(self, began_s: float | None = None, limit_s: float = PLANNING_S) -> None:
        """`began_s` is when the pass began, by the monotonic clock; None is now."""
        now_s = time.monotonic()
        self._until_s = max((now_s if began_s is None else began_s) + PASS_S, now_s + LEAST_S)
        self._left_s = limit_s
        self.put_off = set[str]()
        """Jobs whose turn to be planned has not come."""
        self.planned = 0
        """How many were; one is in any pass, be it ever so slow."""

    @property
    def spent(self) -> bool:
        """True once the pass has planned long enough."""
        return self.planned > 0 and (self._left_s <= 0 or self._is_late())

    @property
    def over(self) -> bool:
        """True once no further waiting jobs are to be looked at: those that come next would only be put off."""
        return self._is_late() or (self.spent and bool(self.put_off))

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Around the planning of one job."""
        began_s = time.monotonic()
        self.planned += 1
        try:
            yield
        finally:
            self._left_s -= time.monotonic() - began_s

    def _is_late(self) -> bool:
        return time.monotonic() >= self._until_s


@contextmanager
def undisturbed() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: a pass makes next to none, and the searches were a third of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
