"""GPUs as the meter reads them: joules between two takes, from an energy counter or from power integrated.
In: a counter or a power reading of one GPU, in J or W, that may refuse. Out: joules, or None (unmetered).
`nvml` makes them of a driver's devices; the meter attributes what they give to ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cluster.api import Source
from cluster.meter.clock import Instant

log = logging.getLogger(__name__)

MAX_SAMPLE_GAP_S = 5.0
"""Power between two samples further apart than this is unknown: a trapezoid over it would be a guess."""
MOST_W = 10_000.0
"""No GPU draws this much: a counter that rises faster was replaced, not drawn from."""
STEP_S = 1.0
"""A counter moves in steps of up to this length, so a short interval may hold the energy of a longer one."""
SAMPLE_S = 0.1
"""How often power is sampled where the sensor does not tell its own period: that of most NVIDIA sensors."""
FASTEST_S, SLOWEST_S = 0.05, 0.5
"""Bounds of the sampling period: above the first a sensor's aliases cost more than its edges, below it the CPU does."""


class Unreadable(Exception):
    """A device did not answer a reading, or refused a setting; the text is its driver's own."""


class Unsupported(Unreadable):
    """A device will never answer this reading: it has no such sensor, or refuses this user."""


@dataclass(frozen=True)
class Slice:
    """A MIG slice, which has no sensor of its own: the GPU that it is cut from, and its share of that GPU."""

    uuid: str
    parent: Gpu
    share: float


class Gpu(Protocol):
    """One GPU. `read` takes a reading; `take` gives what was drawn between the readings of the last two takes."""

    uuid: str
    source: Source
    sample_s: float | None
    """How often power must be sampled for want of a counter; None where there is one."""

    def read(self, at: Instant) -> None:
        """Read the device now."""

    def take(self) -> float | None:
        """Energy in J since the last take; None where any part of that time could not be read."""

    def baseline_j(self) -> float | None:
        """The counter at the last take in J, from which a later process may go on; None where there is none."""

    def resume(self, baseline_j: float | None) -> None:
        """Measure the next take from a baseline that an earlier process kept; None makes that take unmetered."""


class CounterGpu:
    """A GPU with an energy counter (Volta and later)."""

    source: Source = "nvml-counter"
    sample_s: float | None = None

    def __init__(self, uuid: str, counter_j: Callable[[], float]) -> None:
        self.uuid = uuid
        self._counter_j = counter_j
        self._fresh: tuple[float, float] | None = None
        self._last: tuple[float | None, float] | None = None
        self._silent = False

    def read(self, at: Instant) -> None:
        """Read the counter; a failure makes the time around it unmetered."""
        try:
            self._fresh = (at.monotonic_s, self._counter_j())
        except Unreadable as fault:
            if not self._silent:
                log.warning("GPU %s cannot be read (%s); its time is unmetered until it can", self.uuid, fault)
            self._fresh = None
        self._silent = self._fresh is None

    def take(self) -> float | None:
        """Energy in J since the last take.

        A counter that fell (the driver was loaded anew, or it wrapped) or that rose faster than any GPU draws is a new
        baseline: what was drawn meanwhile nobody knows, hence None.
        """
        last, fresh = self._last, self._fresh
        self._last = fresh
        if last is None or fresh is None:
            return None
        energy_j = fresh[1] - last[1]
        most_j = MOST_W * (fresh[0] - last[0] + STEP_S) if last[0] is not None else float("inf")
        if 0.0 <= energy_j <= most_j:
            return energy_j
        log.warning("GPU %s: its counter went from %.1f J to %.1f J; unmetered between", self.uuid, last[1], fresh[1])
        return None

    def baseline_j(self) -> float | None:
        """The counter at the last take, in J."""
        return None if self._last is None else self._last[1]

    def resume(self, baseline_j: float | None) -> None:
        """Measure the next take from `baseline_j`, read nobody knows how long ago."""
        self._last = None if baseline_j is None else (None, baseline_j)


class PowerGpu:
    """A GPU whose power is integrated by the trapezoid over monotonic time; no counter.

    `period_s` is the sensor's own update period where it tells. Its half is how late an edge of the load may be seen,
    so a span of T seconds is known to about (difference of power at its edges) x period / T, plus the sensor's own
    error, which NVIDIA states as 5 %.
    """

    source: Source = "nvml-power"

    def __init__(self, uuid: str, power_w: Callable[[], float], period_s: float | None = None) -> None:
        self.uuid = uuid
        self.sample_s: float | None = min(max(period_s or SAMPLE_S, FASTEST_S), SLOWEST_S)
        self._power_w = power_w
        self._last: tuple[float, float] | None = None
        self._energy_j = 0.0
        self._whole = False
        self._silent = False

    def read(self, at: Instant) -> None:
        """Add one power sample; a failure, or too long a gap since the last, makes the time around it unmetered."""
        try:
            power_w = self._power_w()
        except Unreadable as fault:
            if not self._silent:
                log.warning("GPU %s cannot be read (%s); its time is unmetered until it can", self.uuid, fault)
            self._last, self._whole, self._silent = None, False, True
            return
        self._silent = False
        if self._last is None or at.monotonic_s - self._last[0] > MAX_SAMPLE_GAP_S:
            self._whole = False
        else:
            elapsed_s = at.monotonic_s - self._last[0]
            self._energy_j += (self._last[1] + power_w) / 2 * elapsed_s
        self._last = (at.monotonic_s, power_w)

    def take(self) -> float | None:
        """Energy in J since the last take."""
        energy_j = self._energy_j if self._whole else None
        self._energy_j = 0.0
        self._whole = self._last is not None
        return energy_j

    def baseline_j(self) -> float | None:
        """None: power that nobody sampled is unknown."""
        return None

    def resume(self, baseline_j: float | None) -> None:
        """The next take is unmetered: nobody sampled since the earlier process ended."""
        self._whole = False
