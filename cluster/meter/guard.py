"""Gives power limits back where a meter ended and never came again: a process of its own, that outlives Ray.
In: the spool's folder, the host's boot id, seconds to wait. Out: the limits that were found, and their file gone.
The meter starts one when it changes a first limit; it ends by itself once no limit is changed any more.

It is run by its path and imports nothing of lowtide until it has something to give back: it may wait for days.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

log = logging.getLogger(__name__)

GRACE_S = 30.0
"""How long a host may have no meter before its limits are given back: Ray starts a killed one again in seconds."""
LOOK_S = 2.0
START_TIMEOUT_S = 30.0


def start(folder: Path, host_boot: str, grace_s: float = GRACE_S) -> None:
    """Have a guard watch this host's limits in the spool `folder`; a no-op where one does."""
    # Neither Ray nor `lowtide down` shall take it for a process of theirs, which end with them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LOWTIDE_RAY"))}
    command = [sys.executable, "-I", os.path.abspath(__file__), str(folder), host_boot, repr(grace_s)]
    try:
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=START_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as fault:
        log.warning("no guard of power limits (%s): if Ray dies here, the next meter gives them back", fault)


def watch(folder: Path, host_boot: str, grace_s: float) -> None:
    """Wait until no limit is changed any more, or no meter has lived for `grace_s` seconds: then give them back."""
    limits, guard = folder / f"{host_boot}.limits.json", _locked(folder / f"{host_boot}.guard")
    if guard is None:
        return
    alone_since_s = None
    while limits.exists():
        meter = _locked(folder / f"{host_boot}.lock")
        if meter is None:
            alone_since_s = None
        else:
            now_s = time.monotonic()
            alone_since_s = now_s if alone_since_s is None else alone_since_s
            if now_s - alone_since_s >= grace_s:
                _give_back(limits)  # with the spool's lock held, so that no meter begins meanwhile
                return
            os.close(meter)
        time.sleep(min(LOOK_S, grace_s))


def _give_back(limits: Path) -> None:
    from cluster.meter.limit import found_in, restored, write_found
    from cluster.meter.nvml import PowerDial

    found_w = found_in(limits)
    done = restored(PowerDial(), found_w)
    write_found(limits, {uuid: limit_w for uuid, limit_w in found_w.items() if uuid not in done})


def _locked(path: Path) -> int | None:
    """A file descriptor that holds the lock; None where another does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _detach() -> None:
    """Become nobody's child, in a session of its own: the process that was started ends at once."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)


if __name__ == "__main__":
    _detach()
    watch(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
