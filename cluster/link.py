"""A running segment's line to the control actor: progress up, desire down, without the training loop ever waiting.
In: steps and phases as the loop takes them. Out: whether to stop, and the name of that end.
The worker of rank 0 holds one; the loop asks `stop_wanted` between two steps.

It is also the dead man's switch: with no control actor and no controller it goes by the last `run_until` it saw. A node
that is cut off may have been given up by then: while the control actor is silent, it looks whether a later segment has
taken over the checkpoints, and stops if so, for nothing that it still trains would count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cluster.api import Desire, Ended, Phase, Progress
from jobs.checkpoints import fence
from jobs.patience import bounded
from jobs.spec.errors import Fenced, Unavailable

PERIOD_S = 0.5
ANSWER_TIMEOUT_S = 10.0
LOOK_EVERY_S = 10.0
LOOK_SILENCE_S = 5.0
"""How long the disk may take to say who has taken over."""


class Link:
    """One for a segment. The loop's thread writes and reads plain attributes; a thread of its own does the talking."""

    def __init__(self, segment_id: str, desire: Desire, fenced: Callable[[], str] = str) -> None:
        """`fenced` says who has taken over, or is empty; see `taken_over`."""
        self._segment_id, self._fenced = segment_id, fenced
        self._look_at_s = 0.0
        self._hear(desire)
        self._phase: Phase = "start"
        self._step: tuple[int, int, float | None, int, float] = (0, 0, None, 0, 0.0)
        self._loss: float | None = None
        self._note = ""
        self._stop: Ended | None = None
        self._actor: Any = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="lowtide-link", daemon=True)

    def open(self) -> None:
        """Begin to talk."""
        self._thread.start()

    def close(self) -> None:
        """Say the last word and end the thread."""
        self._closing.set()
        self._thread.join(ANSWER_TIMEOUT_S)

    def phase(self, name: Phase) -> None:
        """A phase began."""
        self._phase = name

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        """A step ended; see jobs.place.Watch."""
        if loss is not None:
            self._loss = loss
        self._step = (step, steps, self._loss, trained_steps, trained_s)

    def note(self, text: str) -> None:
        """Something that the user shall know though training goes on; empty where all is well again."""
        self._note = text

    def stop_wanted(self) -> bool:
        """Whether `run_until` has come. Once it has, it stays so, and the end keeps the name it had then."""
        if self._stop is None:
            desire, until_s = self._heard
            if _elapsed_s() >= until_s:
                self._stop = desire.ends_as
        return self._stop is not None

    @property
    def ends_as(self) -> Ended:
        """The name of the end where the job is not done."""
        return self._stop or self._heard[0].ends_as

    @property
    def desire(self) -> Desire:
        """The newest desire seen."""
        return self._heard[0]

    def _hear(self, desire: Desire) -> None:
        """Take a desire. What is left of its time is measured from here: a wall clock that is set changes nothing."""
        left_s = (desire.run_until - datetime.now(timezone.utc)).total_seconds()
        self._heard = (desire, _elapsed_s() + left_s)

    def _talk(self) -> None:
        from ray.exceptions import RayError

        silent = False
        while True:
            last = self._closing.is_set()
            try:
                self._exchange()
                silent = False
            except (RayError, ValueError, TimeoutError) as fault:  # gone for now: it is looked for again next time
                self._actor = None
                if not silent:
                    print(f"lowtide: the control actor does not answer ({_first_line(fault)}); going on", flush=True)
                silent = True
                self._look()
            if last:
                return
            self._closing.wait(PERIOD_S)

    def _look(self) -> None:
        """Stop where a later segment has taken over; nobody is there to say so."""
        if self._stop is not None or _elapsed_s() < self._look_at_s:
            return
        self._look_at_s = _elapsed_s() + LOOK_EVERY_S
        why = self._fenced()
        if why:
            print(f"lowtide: {why}; stopping", flush=True)
            self._stop = self.desire.ends_as

    def _exchange(self) -> None:
        import ray

        from cluster.control import control_actor

        if self._actor is None:
            self._actor = control_actor()
        reply = self._actor.exchange.remote(self._segment_id, self.desire, self._progress())
        newest: Desire = ray.get(reply, timeout=ANSWER_TIMEOUT_S)
        if newest != self.desire:
            self._hear(newest)

    def _progress(self) -> Progress:
        """From the first exchange on: before a step is told, its phase tells that the worker is there."""
        step, steps, loss, trained_steps, trained_s = self._step
        now, note = datetime.now(timezone.utc), self._note
        return Progress(now, self._phase, step, steps, loss, trained_steps, trained_s, note=note)


def taken_over(checkpoints: Path, segment: int) -> str:
    """Which later segment has taken over the checkpoints, in words; empty where none has, or the disk does not say."""
    try:
        bounded(str(checkpoints), lambda _pulse: fence.check(checkpoints, segment), LOOK_SILENCE_S)
    except Fenced as fault:
        return str(fault)
    except (Unavailable, OSError):
        return ""
    return ""


def _elapsed_s() -> float:
    """A clock that nobody sets; it goes on while the host is suspended, and so does a segment's time."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _first_line(fault: BaseException) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]
