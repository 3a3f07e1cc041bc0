"""Saving a checkpoint: begun by all ranks at a step boundary, written while training goes on, published by rank 0.
In: an engine at a boundary. Out: published checkpoints, one write in flight at most, and faults that every rank raises.
The loop in jobs.train begins one when it is due, and finishes it at the first check at which every rank has written.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.checkpoints import checkpoint
from jobs.checkpoints.checkpoint import Published, Sealed
from jobs.checkpoints.fence import blamed
from jobs.checkpoints.shelf import Shelf
from jobs.pace import Parts
from jobs.patience import GivenUp
from jobs.place import Place
from jobs.spec import LowtideError

if TYPE_CHECKING:
    from jobs.engine import Engine
    from jobs.group import Group


@dataclass(frozen=True)
class _Write:
    """One checkpoint that is being written."""

    step: int
    partial: Path
    over: threading.Event
    """Set where nobody wants it any more."""
    beside: Future[dict[str, Sealed]] | None
    """Under way in the writer's thread; None where it is written when it is finished."""
    sealed: Callable[[], dict[str, Sealed]]
    """What this rank wrote; waits for it."""


class Saver:
    """One rank's part in saving; all ranks begin and finish, at the same steps."""

    def __init__(self, group: Group, place: Place, shelf: Shelf, parts: Parts) -> None:
        self._group, self._place, self._shelf, self._parts = group, place, shelf, parts
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lowtide-save", initializer=_give_way)
        self._write: _Write | None = None

    @property
    def in_flight(self) -> int | None:
        """The step of the checkpoint that is begun and not finished, else None; the same on every rank."""
        return None if self._write is None else self._write.step

    @property
    def is_written(self) -> bool:
        """Whether this rank has written its part of the one in flight, or has failed to."""
        return self._write is not None and self._write.beside is not None and self._write.beside.done()

    def begin(self, engine: Engine, meta: Mapping[str, Any], room_bytes: int, beside: bool) -> None:
        """Take the state as it is now: into host memory where it is written `beside` the training, else to files.

        `room_bytes` must be free on the disk. Unavailable on every rank where it has not that room, or does not answer.
        """
        assert self._write is None
        folder, step = self._place.checkpoints, int(meta["step"])
        partial = checkpoint.partial_of(folder, step, self._place.segment)

        def prepare() -> None:
            self._shelf.check()
            self._shelf.settle()
            checkpoint.clear(folder, self._place.segment)
            checkpoint.make_room(folder, room_bytes)
            checkpoint.begin(partial, meta)

        with self._parts.time("copy" if beside else "checkpoint"):
            self._group.first(prepare)
            engine.save(folder, partial.name, beside)  # not by group.each: a rank that fails inside must end, not wait
        over = threading.Event()
        act = functools.partial(self._finish_files, engine, partial, over)
        under_way = self._pool.submit(act) if beside else None
        self._write = _Write(step, partial, over, under_way, act if under_way is None else under_way.result)

    def finish(self, waits: bool) -> Published:
        """Publish the one in flight, once every rank has written; `waits`: training does, so it is timed apart.

        A fault of any rank's writing is raised on all; the checkpoint before stays in force then.
        """
        assert self._write is not None
        write, self._write = self._write, None
        with self._parts.time("checkpoint" if waits else "copy"):
            shares = self._group.each(write.sealed)
        with self._parts.time("publish" if waits else "copy"):
            sealed = {name: file for share in shares for name, file in share.items()}
            return self._group.first(lambda: self._publish(write, sealed))

    def abandon(self) -> None:
        """Write no more of the one in flight, on any rank; the one before stays in force, and the disk is free."""
        assert self._write is not None
        write, self._write = self._write, None
        write.over.set()
        with self._parts.time("checkpoint"):
            self._group.each(functools.partial(_ended, write))

    def close(self) -> None:
        """End the writer's thread; nothing may be in flight."""
        self._pool.shutdown()

    def _finish_files(self, engine: Engine, partial: Path, over: threading.Event) -> dict[str, Sealed]:
        """Write what the engine holds, safely and with checksums; in the writer's thread."""
        with blamed(self._place.checkpoints, self._place.segment):
            own = {str(path.relative_to(partial)): sealed for path, sealed in engine.finish_save(over).items()}
            return own | checkpoint.seal_files(partial, [checkpoint.META] if self._place.rank == 0 else [])

    def _publish(self, write: _Write, sealed: dict[str, Sealed]) -> Published:
        with blamed(self._place.checkpoints, self._place.segment):
            rest = checkpoint.unsealed(write.partial, sealed)  # DeepSpeed writes some itself, offloaded tensors say
            return self._shelf.publish(write.step, sealed | checkpoint.seal_files(write.partial, rest))


def _ended(write: _Write) -> None:
    """Wait until the writer has let go of it, whatever became of it."""
    with suppress(GivenUp, LowtideError):
        write.sealed()


def _give_way() -> None:
    """Let training have the processor first; the threads that this one starts give way, too."""
    with suppress(OSError, AttributeError):  # where the system has no niceness of threads, they share evenly
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
