"""The meter's beat: a thread that reads at whole seconds of UTC and at slot edges, and samples power in between.
In: a Meter. Out: its ticks, until stopped; a word to whoever runs it if the thread fails.
The meter's actor starts it; tests tick by themselves.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from typing import Protocol

from cluster.meter.row import next_edge_us

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often devices are read and attributed."""
MIN_WAIT_US = 50_000
"""An edge sooner than this is left to the next tick, which bounds the rate for any slot."""


class Beating(Protocol):
    """What is kept going."""

    @property
    def sample_s(self) -> float | None:
        """How often power must be sampled between ticks; None where it need not."""

    @property
    def slot_us(self) -> int:
        """Rows are cut at UTC multiples of it."""

    def now_us(self) -> int:
        """Microseconds of UTC since the epoch."""

    def sample(self) -> None:
        """Sample the power of devices that have no counter."""

    def tick(self) -> None:
        """Read all devices and attribute what they drew."""


class Beat:
    """One thread; `stop` waits for it."""

    def __init__(self, meter: Beating, on_fault: Callable[[], None], tick_s: float = TICK_S) -> None:
        self._meter, self._on_fault, self._tick_us = meter, on_fault, round(tick_s * 1e6)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        meter = self._meter
        try:
            tick_us = self._next_tick_us()
            while True:
                wait_s = max(0.0, (tick_us - meter.now_us()) / 1e6)
                sample_s = meter.sample_s
                if self._ending.wait(wait_s if sample_s is None else min(sample_s, wait_s)):
                    return
                if meter.now_us() < tick_us:
                    meter.sample()
                else:
                    meter.tick()
                    tick_us = self._next_tick_us()
        except BaseException:
            log.error("the meter failed:\n%s", traceback.format_exc())
            self._on_fault()
            raise

    def _next_tick_us(self) -> int:
        """The next whole tick of UTC, or the next edge if sooner: read at an edge, no energy is spread across it."""
        now_us = self._meter.now_us()
        next_us = (now_us // self._tick_us + 1) * self._tick_us
        edge_us = next_edge_us(now_us, self._meter.slot_us)
        return edge_us if now_us + MIN_WAIT_US < edge_us < next_us else next_us
