"""A job's checkpoints as one segment has them: found at its start, published as it goes, sent on where the zone asks.
In: a Place, on rank 0. Out: the checkpoint to go on from; every later one in the working folder, and at the zone's URL.
The loops of jobs.train and jobs.script have one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from jobs.checkpoints import checkpoint, fence, resume
from jobs.checkpoints.checkpoint import Published, Sealed
from jobs.checkpoints.mirror import Mirror
from jobs.patience import bounded
from jobs.place import Place
from jobs.spec import Unavailable


class Timed(Protocol):
    """Who keeps seconds by part: jobs.pace.Parts."""

    def add(self, name: str, duration_s: float) -> None:
        """Add to the part `name`."""


class Shelf:
    """One for a segment; every method but the constructor is for rank 0."""

    def __init__(self, place: Place, keep: int, parts: Timed) -> None:
        self._place, self._keep, self._parts = place, keep, parts
        self._mirror: Mirror | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lowtide-prune")
        self._pruned: Future[None] | None = None
        self.moved_bytes = 0
        self.moved_from: str | None = None

    def find(self) -> Published | None:
        """The newest checkpoint of the job, brought over where it lies elsewhere; see resume.find."""
        brought = resume.find(self._place, self._keep)
        if brought.moved_from is not None:
            assert brought.found is not None
            self.moved_bytes, self.moved_from = brought.moved_bytes, brought.moved_from
            self._parts.add("transfer", brought.duration_s)
            size = f"{brought.moved_bytes / 1e6:.1f} MB read of {brought.found.size_bytes / 1e6:.1f}"
            _say(f"{brought.found.folder.name} brought from {brought.moved_from}: {size} in {brought.duration_s:.2f} s")
        if self._place.mirror is not None:
            self._mirror = Mirror(self._place.mirror, self._keep, _say, self._place.segment)
            if brought.found is not None:
                self._mirror.push(brought.found)  # it may have come from elsewhere, or its sending been cut short
        return brought.found

    def check(self) -> None:
        """Fenced where a later segment has taken over: nothing more is to be written."""
        folder = self._place.checkpoints
        bounded(str(folder), lambda _pulse: fence.check(folder, self._place.segment))

    def publish(self, step: int, sealed: Mapping[str, Sealed]) -> Published:
        """Publish the sealed partial of `step`, and begin to send it on and to remove the oldest."""
        held = self._mirror.held() if self._mirror is not None else set()
        place = self._place
        published = checkpoint.publish(place.checkpoints, step, sealed, self._keep, held, place.segment, prunes=False)
        if self._mirror is not None:
            self._mirror.push(published)
        self._pruned = self._pool.submit(self._prune, held)
        return published

    def settle(self) -> None:
        """Wait until the oldest is removed: the next one may need its room."""
        if self._pruned is not None:
            self._pruned.result()
            self._pruned = None

    def finish(self, result: bool = False) -> None:
        """Wait until the newest is at the zone's own place; the finished model, too, where there is one."""
        self.check()
        self.settle()
        if self._mirror is not None:
            if result:
                self._mirror.push_folder(self._place.checkpoints / "final")
            self._mirror.finish()

    def _prune(self, held: Collection[str]) -> None:
        try:
            checkpoint.prune(self._place.checkpoints, held, self._place.segment)
        except Unavailable as fault:  # what is published counts; the next prune tries again
            _say(f"the oldest checkpoint is still there: {fault}")


def _say(text: str) -> None:
    print(f"lowtide: {text}", flush=True)
