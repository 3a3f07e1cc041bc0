"""One question at a time for all threads and processes of a site: the others wait and find what came of it.
In: what is asked, and how long it is worth waiting. Out: the turn to ask, and the failure of whoever had it before.
The HTTP session puts every question that it keeps in such a flight.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from jobs.spec import utc
from orchestrator.http.faults import Reason, SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.notes import Notes
from orchestrator.http.refusal import Asker

log = logging.getLogger(__name__)

_LEFT_ALONE_S_AT_MOST = 3600.0
"""A provider that asks for more is asked again after an hour: it may have meant something else."""
_LOOK_EVERY_S = 0.02
_PLACES = 1024
"""Lock files at most: two questions of one place merely wait for each other."""


class Flight:
    """Locks in a folder, at most _PLACES of them; the kernel frees those of a process that dies."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._notes = Notes(folder)
        self._threads = tuple(threading.Lock() for _ in range(64))

    @contextmanager
    def turn(self, key: str, wait_s: float) -> Iterator[None]:
        """The turn to ask, once those before have done; without it after `wait_s`, for waiting longer helps nobody."""
        until = time.monotonic() + wait_s
        threads = self._threads[hash(key) % len(self._threads)]
        mine = threads.acquire(timeout=wait_s)
        lock = self._locked(key, max(until - time.monotonic(), 0.0)) if mine else None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()
            if mine:
                threads.release()

    def failed(self, key: str, began: datetime, now: datetime, asker: Asker) -> SignalFault | None:
        """The failure that answers a question put at `began`, too; None where it must be put.

        One that came while the question waited does; for later ones it does as long as it was noted for.
        """
        note = self._notes.find(key, began)
        if note is None:
            return None
        try:
            at, until = utc(note["at"]), utc(note["held_until"])
            if not (began < at or now < until):
                return None
            fault = _fault(asker, str(note["text"]), str(note["reason"]), (until - now).total_seconds(), note["waits"])
            fault.status = note["status"]
            return fault
        except (KeyError, ValueError):
            return None

    def fail(self, key: str, fault: SignalFault, now: datetime, limits: Limits) -> None:
        """Note a failure for those who wait, and where waiting may mend it, for those who come in the next seconds.

        A refusal is for those who wait alone: whoever comes later may come with another key.
        """
        asked_s = min(fault.retry_after_s or 0.0, _LEFT_ALONE_S_AT_MOST)
        held_s = 0.0 if isinstance(fault, SignalRefused) or not limits.failed_s else max(limits.failed_s, asked_s)
        values = {
            "at": now.isoformat(),
            "held_until": (now + timedelta(seconds=held_s)).isoformat(),
            "text": str(fault).removeprefix(f"{fault.provider}: zone {fault.zone}: "),
            "reason": fault.reason,
            "waits": fault.retry_after_s is not None,
            "status": fault.status,
        }
        self._notes.put(key, values, now, now + timedelta(seconds=max(held_s, limits.total_s)))

    def done(self, key: str) -> None:
        """Forget a failure: the question has been answered."""
        self._notes.drop(key)

    def _locked(self, key: str, wait_s: float) -> FileLock | None:
        """The lock of all processes; None where the folder cannot hold it or others keep it too long."""
        lock = FileLock(self._folder / f"{_place(key)}.lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=wait_s, poll_interval=_LOOK_EVERY_S)
        except Timeout:
            log.info("another process has been asking for %.0f s; asking as well", wait_s)
            return None
        except (OSError, NotImplementedError) as fault:
            log.debug("%s holds no locks (%s)", self._folder, fault)
            return None
        return lock


def _place(key: str) -> str:
    return f"{int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], 'big') % _PLACES:04d}"


def _fault(asker: Asker, text: str, reason: str, left_s: float, waits: bool) -> SignalFault:
    """A noted failure as the fault that it was, for whoever asks now."""
    if reason == "outage":
        return SignalOutage(asker.provider, asker.zone, text, max(left_s, 0.0) if waits else None)
    if reason == "garbled":
        return SignalGarbled(asker.provider, asker.zone, text)
    return SignalRefused(asker.provider, asker.zone, text, cast(Reason, reason))
