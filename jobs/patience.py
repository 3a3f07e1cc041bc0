"""Patience: file work that hangs is given up after a silence, and nothing of it goes on behind the caller's back.
In: acts that say when they get on. Out: their values, or Unavailable that names what was silent.
Code, tokens and checkpoints are read, written, converted, sent and brought through it: a file system that hangs then
holds up no job for ever.

A thread that waits in the kernel for a file server cannot be ended. Its work is given up instead: it is a daemon, so
that no exit waits for it, and its next `beat` raises, so that it touches nothing more.
"""

from __future__ import annotations

import errno
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from jobs.spec import Unavailable

SILENCE_S = 120.0
"""How long file work may say nothing before it is given up."""
LANES = 4
"""How many files are worked on at once."""
_OUTSIDE = {
    getattr(errno, name)
    for name in (
        *("EIO", "ENODEV", "ENXIO", "EREMOTEIO", "EROFS", "EUCLEAN"),
        *("EDQUOT", "ENOSPC"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENOLINK", "ENOTCONN", "ESTALE", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
"""What a disk that is broken, full or far away says."""
_READ_BYTES = 8 << 20
"""Read at a time; a server that needs longer than the silence for it counts as one that hangs."""
_SETTLE_S = 5.0
"""How long lanes get to see that one of them has failed."""

Value = TypeVar("Value")
Beat = Callable[[], None]


class GivenUp(Exception):
    """Raised in a thread whose caller waits no more; nobody else sees it, but for who abandons what he had begun."""


class Pulse:
    """What an act says it gets on with; one for all acts of a call."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._until_s = time.monotonic() + silence_s
        self._over = False
        self._computing, self._lock = 0, threading.Lock()

    def beat(self, allow_s: float = 0.0) -> None:
        """Getting on: silence counts anew from now, after `allow_s` in which none is expected. May raise GivenUp."""
        if self._over:
            raise GivenUp
        self._until_s = max(self._until_s, time.monotonic() + self._silence_s + allow_s)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No file is worked on meanwhile: however long that takes, it is no silence. May raise GivenUp at its end."""
        with self._lock:
            self._computing += 1
        try:
            yield
        finally:
            self._until_s = time.monotonic() + self._silence_s
            with self._lock:
                self._computing -= 1
        self.beat()

    def left_s(self) -> float:
        """Seconds until the silence is too long."""
        return self._silence_s if self._computing else self._until_s - time.monotonic()

    def stop(self) -> None:
        """Nobody waits any more."""
        self._over = True


def bounded(what: str, act: Callable[[Pulse], Value], silence_s: float | None = None) -> Value:
    """What `act` returns; Unavailable where it is silent for `silence_s`, SILENCE_S by default. `what` is the place."""
    return together(what, [act], silence_s)[0]


def together(what: str, acts: Sequence[Callable[[Pulse], Value]], silence_s: float | None = None) -> list[Value]:
    """What the acts return, in their order, LANES of them at a time; the first fault of any ends all.

    Unavailable where none of them has said anything for `silence_s` seconds.
    """
    silence_s = SILENCE_S if silence_s is None else silence_s
    pulse, ends = Pulse(silence_s), SimpleQueue[tuple[int, Value | None, BaseException | None]]()
    numbered, lock = iter(enumerate(acts)), threading.Lock()

    def lane() -> None:
        while True:
            with lock:
                index, act = next(numbered, (-1, None))
            if act is None:
                return
            try:
                pulse.beat()
                ends.put((index, act(pulse), None))
            except BaseException as fault:  # the caller's thread raises it
                ends.put((index, None, fault))
                return

    lanes = [threading.Thread(target=lane, name=f"lowtide-{what}", daemon=True) for _ in acts[:LANES]]
    for thread in lanes:
        thread.start()
    found: dict[int, Value] = {}
    try:
        while len(found) < len(acts):
            index, value = _next_end(what, ends, pulse, silence_s)
            found[index] = value
    except BaseException:
        pulse.stop()
        for thread in lanes:
            thread.join(_SETTLE_S if pulse.left_s() > 0 else 0.0)
        raise
    return [found[index] for index in range(len(acts))]


def _next_end(
    what: str, ends: SimpleQueue[tuple[int, Value | None, BaseException | None]], pulse: Pulse, silence_s: float
) -> tuple[int, Value]:
    while True:
        try:
            index, value, fault = ends.get(timeout=max(0.0, pulse.left_s()))
        except Empty:
            if pulse.left_s() > 0:
                continue
            raise Unavailable(
                f"{what} has not answered for {silence_s:g} s; look at its file server, disk or network"
            ) from None
        if fault is not None:
            raise fault
        return index, value  # type: ignore[return-value]  # None only where Value is


@contextmanager
def told_as(what: str) -> Iterator[None]:
    """Where what a disk says (full, read-only, gone) becomes Unavailable, naming the place; nothing missing does."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise Unavailable(f"{what}: {fault.strerror or fault}") from fault


class _Steady(io.FileIO):
    """A file that is read in pieces, each told of."""

    def __init__(self, path: Path, beat: Beat) -> None:
        super().__init__(path)
        self._beat = beat

    def readinto(self, buffer: Any) -> int:
        self._beat()
        return int(super().readinto(memoryview(buffer)[:_READ_BYTES]) or 0)


def reading(path: Path, beat: Beat) -> io.BufferedReader:
    """The file, open to be read; each piece that comes of it is a beat. Read it by size: the whole at once is one."""
    return io.BufferedReader(_Steady(path, beat), 1 << 20)


def is_outside(fault: BaseException) -> bool:
    """Whether this is what a disk or a file server says that is full, broken or gone, or was raised because of that."""
    said: BaseException | None = fault
    while said is not None:
        if isinstance(said, OSError) and said.errno in _OUTSIDE:
            return True
        said = said.__cause__ or (None if said.__suppress_context__ else said.__context__)
    return False
