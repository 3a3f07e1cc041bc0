"""The meter's time: UTC in whole microseconds that never runs backwards by a small clock step.
In: a wall clock and a monotonic clock. Out: Instants, by which every row is cut.
The meter takes one Instant per reading; durations come from the monotonic part alone.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

MAX_SLEW = 0.05
"""Share of the elapsed time by which a difference to the wall clock is worked off."""
JUMP_S = 60.0
"""A difference above this is no step of NTP but a suspended host or a clock set by hand: it is taken at once."""


class Clock(Protocol):
    """Two clocks: wall time in s since the UNIX epoch, and monotonic s."""

    def wall_s(self) -> float:
        """UTC, seconds since the UNIX epoch."""

    def monotonic_s(self) -> float:
        """Seconds since any fixed moment."""


class SystemClock:
    """The machine's clocks."""

    def wall_s(self) -> float:
        """UTC, seconds since the UNIX epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds since boot."""
        return time.monotonic()


@dataclass(frozen=True)
class Instant:
    """One moment: `utc_us` in microseconds since the UNIX epoch places it, `monotonic_s` measures from it."""

    utc_us: int
    monotonic_s: float


class Timeline:
    """Instants from one wall reading plus monotonic offsets, slewed towards the wall clock afterwards.

    So a small step of the wall clock neither tears adjacent rows apart nor makes them overlap, and a long-lived
    meter still keeps to UTC.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._monotonic_s = clock.monotonic_s()
        self._utc_s = clock.wall_s()

    def now(self) -> Instant:
        """The present moment; its UTC is never before an earlier one's, except after a jump backwards above JUMP_S."""
        monotonic_s = self._clock.monotonic_s()
        elapsed_s = monotonic_s - self._monotonic_s
        self._monotonic_s = monotonic_s
        self._utc_s += elapsed_s
        error_s = self._clock.wall_s() - self._utc_s
        if abs(error_s) > JUMP_S:
            log.warning("the wall clock jumped by %.0f s; rows follow it from here", error_s)
            self._utc_s += error_s
        else:
            most_s = MAX_SLEW * elapsed_s
            self._utc_s += min(max(error_s, -most_s), most_s)
        return Instant(round(self._utc_s * 1e6), monotonic_s)
