"""Another width: the newest checkpoint is converted while the model is built, each rank a share of it.
In: a published checkpoint that another number of workers wrote. Out: its universal form, whole and published.
jobs.train starts it before the build; next, jobs.engine loads the folder.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jobs.checkpoints import universal
from jobs.checkpoints.checkpoint import Published, Sealed
from jobs.group import Group
from jobs.place import Place


class Resize:
    """One rank's part in the conversion; all ranks make one and ask for its folder, in the same order.

    The conversion reads and writes files, and the build computes: both go on at once. The published checkpoint is not
    touched. A universal form that a crash left whole is taken as it is.
    """

    def __init__(self, group: Group, place: Place, found: Published) -> None:
        self._group, self._place, self._found = group, place, found
        self._began_s = time.monotonic()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lowtide-convert")
        self._work: Future[dict[str, Sealed]] | None = None
        if not group.first(lambda: universal.prepare(found)):
            self._work = self._pool.submit(universal.convert, found, place.rank, place.world_size)

    def folder(self) -> Path:
        """The universal form, once every rank has written its share; a fault of any rank is raised on all."""
        target = universal.folder_of(self._found)
        if self._work is not None:
            asked_s = time.monotonic()
            shares = self._group.each(self._work.result)
            sealed = {name: file for share in shares for name, file in share.items()}
            size_bytes = self._group.first(lambda: universal.publish(self._found, sealed))
            self._say(size_bytes, asked_s)
        self._pool.shutdown()
        return target

    def _say(self, size_bytes: int, asked_s: float) -> None:
        if self._place.rank != 0:
            return
        now_s = time.monotonic()
        before = self._found.meta["essentials"]["workers.count"]
        print(
            f"lowtide: {self._found.folder.name} of {before} workers converted for {self._place.world_size}: "
            f"{size_bytes / 1e6:.1f} MB in {now_s - self._began_s:.2f} s, {asked_s - self._began_s:.2f} s of it beside "
            "the build",
            flush=True,
        )
