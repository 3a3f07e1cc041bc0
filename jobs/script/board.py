"""What ranks tell one another out of turn: that the scripts are ended, that one has failed.
In: the word of one rank. Out: the same to every rank that looks.
jobs.script.run looks twice a second; what needs every rank goes by jobs.group instead.
"""

from __future__ import annotations

import os
from datetime import timedelta

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from jobs.group import Group

TIMEOUT = timedelta(seconds=60)
_PEER = "the script of another rank failed first, or rank 0 is gone: connection closed by peer"


class PeerFailed(RuntimeError):
    """The script of another rank failed first; that rank tells the cause."""

    def __init__(self, text: str = _PEER) -> None:
        super().__init__(text)


class Board:
    """A small store on rank 0 that all ranks read without waiting for one another."""

    def __init__(self, group: Group) -> None:
        host = os.environ.get("MASTER_ADDR", "127.0.0.1")
        mine = None
        if group.rank == 0:
            mine = TCPStore(host, 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        port = group.first(lambda: mine.port if mine is not None else 0)
        self._store = mine or TCPStore(host, port, is_master=False, timeout=TIMEOUT, wait_for_workers=False)

    def end(self) -> None:
        """Every rank shall end its script."""
        self._store.set("end", "1")

    def ends(self) -> bool:
        """Whether every rank shall end its script; PeerFailed where one has failed, or rank 0 is gone."""
        try:
            if self._store.check(["failed"]):
                raise PeerFailed
            return bool(self._store.check(["end"]))
        except DistError:
            raise PeerFailed from None

    def fail(self) -> bool:
        """The script of this rank has failed; True where it is the first one."""
        try:
            first = self._store.add("failures", 1) == 1
            self._store.set("failed", "1")
        except DistError:
            return False
        return bool(first)
