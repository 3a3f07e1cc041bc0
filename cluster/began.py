"""When this process began, by the clock that other processes of the host go by.
In: nothing. Out: UNIX seconds, to the hundredth.
The driver and the workers of a segment tell by it how long their start took.

The kernel counts a process's start from the host's boot, and tells the boot's own time in whole seconds only: what is
added up from both comes up to a second too early, as psutil's `create_time` does.
"""

from __future__ import annotations

import time

import psutil


def began_at_s() -> float:
    """When this process began, UNIX s; where the host counts no time since its boot, to the second."""
    started_at_s = float(psutil.Process().create_time())
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return started_at_s
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - (started_at_s - psutil.boot_time())
    return time.time() - age_s
