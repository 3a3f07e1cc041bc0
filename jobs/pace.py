"""Pace: when the ranks check in, when they save, and how long everything took.
In: step boundaries and a Watch. Out: rank 0's word for the next check, and seconds by part.
The loop in jobs.train asks it at every boundary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from jobs.place import Watch

CHECK_EVERY_S = 0.3
"""Seconds of training between two checks, at which ranks agree and the loss is read; a longer step is checked each."""

Action = Literal["go", "checkpoint", "stop"]


@dataclass
class Parts:
    """Seconds by part of the run, measured by the monotonic clock."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add what the block takes to the part `name`."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started_s)

    def add(self, name: str, duration_s: float) -> None:
        """Add to the part `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + duration_s


class Clock:
    """When to check, when to save, and how long the steps took. Rank 0's decides; the others follow its word."""

    def __init__(self, watch: Watch, every_s: float, asks: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._watch, self._every_s, self._asks, self._now = watch, every_s, asks, now
        self._saved_at_s = now()
        self._checked: tuple[float, int] | None = None
        self._stop_seen_at_s: float | None = None
        self.next_check = 0
        self.trained_steps = 0
        self.trained_s = 0.0
        self.first_step_s = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one step, check included."""
        started_s = self._now()
        yield
        duration_s = self._now() - started_s
        if self.trained_steps == 0:
            self.first_step_s = duration_s
        self.trained_steps += 1
        self.trained_s += duration_s
        self._sees_stop()

    def decide(self, step: int, steps: int) -> tuple[Action, int]:
        """What rank 0 wants now, and the steps until the next check: about CHECK_EVERY_S at the newest pace."""
        pace_s = CHECK_EVERY_S
        if self._checked is not None and step > self._checked[1]:
            pace_s = (self._now() - self._checked[0]) / (step - self._checked[1])
        distance = max(1, min(int(CHECK_EVERY_S / max(pace_s, 1e-6)), steps - step))
        if self._sees_stop():
            return "stop", distance
        due = self._now() - self._saved_at_s >= self._every_s and step < steps
        return ("checkpoint" if due else "go"), distance

    def agreed(self, step: int, distance: int) -> None:
        """The ranks have spoken: the next check comes after `distance` steps."""
        self._checked = (self._now(), step)
        self.next_check = step + distance

    def saved(self) -> None:
        """A checkpoint was published just now; the time it took counts for no step."""
        self._saved_at_s = self._now()
        self._checked = None if self._checked is None else (self._saved_at_s, self._checked[1])

    def step_end_s(self) -> float:
        """Seconds since a stop was first seen; 0 where none was."""
        return 0.0 if self._stop_seen_at_s is None else self._now() - self._stop_seen_at_s

    def _sees_stop(self) -> bool:
        if self._asks and self._stop_seen_at_s is None and self._watch.stop_wanted():
            self._stop_seen_at_s = self._now()
        return self._stop_seen_at_s is not None
