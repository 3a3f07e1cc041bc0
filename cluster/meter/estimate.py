"""Watts where no sensor tells: of the processors by what their cores do, of memory by its size.
In: the environment that the site sets. Out: Watts, and the joules that they make of core-seconds.
`host` labels what it takes from here `estimated`, and shares measured energy between cores by the same weights.

The model: a core-second costs `busy_w_per_core` while it computes and `idle_w_per_core` while it waits. The defaults
are an assumption, not a measurement: dual-socket servers of 2019 to 2024 have 200 to 360 W of TDP over 24 to 64 cores
a socket, 5 to 9 W a core, and SPECpower results of such machines draw about a quarter to a third of full load when
idle; with memory, fans and conversion losses that makes 10 W busy and 3 W idle. By TDP it is the processors alone.
Memory then costs 0.4 W per GiB (DDR4 and DDR5 modules of 16 to 64 GiB draw 4 to 10 W; Cloud Carbon Footprint takes
0.392 W per GB).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from jobs.spec import InputError

BUSY_W_PER_CORE = 10.0
IDLE_W_PER_CORE = 3.0
DRAM_W_PER_GIB = 0.4


@dataclass(frozen=True)
class CoreWatts:
    """Power of one core in W, computing and waiting, and of memory in W per GiB where it is not in the cores' watts."""

    busy_w_per_core: float = BUSY_W_PER_CORE
    idle_w_per_core: float = IDLE_W_PER_CORE
    dram_w_per_gib: float = DRAM_W_PER_GIB
    dram_apart: bool = False
    """True where the cores' watts are the processors' alone, so that memory is estimated beside them."""

    @staticmethod
    def from_environment(cores: int | None = None) -> CoreWatts:
        """The watts that the environment sets; InputError names a bad variable, or two that exclude one another.

        LOWTIDE_CPU_W_PER_CORE and LOWTIDE_CPU_IDLE_W_PER_CORE: a core with its share of the machine, memory included.
        LOWTIDE_CPU_TDP_W: all processors of the host together; divided by its logical `cores`, memory apart.
        LOWTIDE_DRAM_W_PER_GIB: memory, counted apart from then on.
        """
        dram_w = _watts("LOWTIDE_DRAM_W_PER_GIB", "GiB")
        idle_w = _watts("LOWTIDE_CPU_IDLE_W_PER_CORE", "core")
        busy_w = _watts("LOWTIDE_CPU_W_PER_CORE", "core")
        tdp_w = _watts("LOWTIDE_CPU_TDP_W", "host")
        if busy_w is not None and tdp_w is not None:
            raise InputError("LOWTIDE_CPU_TDP_W and LOWTIDE_CPU_W_PER_CORE are both set; keep one of them")
        if tdp_w is not None:
            busy_w = tdp_w / (cores or os.cpu_count() or 1)
            idle_w = busy_w * IDLE_W_PER_CORE / BUSY_W_PER_CORE if idle_w is None else idle_w
        return CoreWatts(
            BUSY_W_PER_CORE if busy_w is None else busy_w,
            IDLE_W_PER_CORE if idle_w is None else idle_w,
            DRAM_W_PER_GIB if dram_w is None else dram_w,
            dram_apart=tdp_w is not None or dram_w is not None,
        )

    def cores_j(self, busy_s: float, idle_s: float) -> float:
        """Joules of core-seconds."""
        return self.busy_w_per_core * busy_s + self.idle_w_per_core * idle_s


def _watts(name: str, of_what: str) -> float | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    try:
        watts = float(text)
    except ValueError:
        watts = math.nan
    if not 0 <= watts < math.inf:
        raise InputError(f"{name}: {text!r} is not a power in W per {of_what}; set e.g. {name}=10")
    return watts
