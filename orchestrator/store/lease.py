"""The lease that keeps two controllers apart: one holder at a time, and an epoch that only grows.
In: a session, who asks and the time. Out: the epoch, or the name of the one who holds it.
Every command to the cluster carries the epoch, so that a stalled holder that wakes is refused.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta

import psutil
from sqlalchemy.orm import Session

from orchestrator.store.schema import Lease

LEASE_S = 60.0


class Held(Exception):
    """Another controller holds the lease; the text names it."""


def this_process() -> str:
    """A name for this process that no other process, also a later one of the same id, has."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started_s(os.getpid()):.2f}"


def take(session: Session, holder: str, now: datetime) -> int:
    """Take or renew the lease; returns its epoch. Held where another living controller has it."""
    lease = session.get(Lease, 1)
    if lease is None:
        lease = Lease(one=1, holder=holder, epoch=1, expires_at=now)
        session.add(lease)
    elif lease.holder != holder:
        # One that runs out later than any was ever given was given before the clock was set back.
        if now < lease.expires_at <= now + timedelta(seconds=2 * LEASE_S) and not _gone(lease.holder):
            raise Held(lease.holder)
        lease.holder, lease.epoch = holder, lease.epoch + 1
    lease.expires_at = now + timedelta(seconds=LEASE_S)
    return lease.epoch


def check(session: Session, holder: str, epoch: int) -> None:
    """Held where the lease of this epoch has passed to another: a controller that stalled must write nothing more."""
    lease = session.get(Lease, 1)
    if lease is None or (lease.holder, lease.epoch) != (holder, epoch):
        raise Held(lease.holder if lease is not None else "nobody")


def release(session: Session, holder: str, now: datetime) -> None:
    """Let the lease expire, where this holder has it."""
    lease = session.get(Lease, 1)
    if lease is not None and lease.holder == holder:
        lease.expires_at = now


def _gone(holder: str) -> bool:
    """True where the holder was a process of this host that has ended: its lease need not run out."""
    host, pid, created = holder.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return abs(_started_s(int(pid)) - float(created)) > 0.05
    except psutil.NoSuchProcess:
        return True


def _started_s(pid: int) -> float:
    """When a process began, in seconds since the host's boot: a wall clock that is set does not change it."""
    return psutil.Process(pid).create_time() - psutil.boot_time()
