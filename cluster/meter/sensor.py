"""What is known of a GPU's own power sensor, for its figures are no better than it.
In: NVML's architecture and the GPU's name. Out: what the sensor sees, and how far short figures may be off.
`doctor` says it; the meter's rows are what the sensor told, uncorrected.

Sources: NVML's reference of nvmlDeviceGetPowerUsage (averaged over 1 s on Ampere except GA100 and later, of the moment
before); Yang, Adamek and Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention" (arXiv 2312.02741):
A100 and H100 are sampled a quarter of the time, and sensors are off by up to 5 %, in proportion and for good.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AMPERE, HOPPER = 7, 9
"""NVML's numbers of architectures."""
ERROR_PERCENT = 5.0
"""What a sensor may be off by as a whole, whatever the length of a run."""
_PART_TIME = re.compile(r"\b(A100|A800|A30|H100|H200|H800|GH200)\b")
_OF_THE_MOMENT = re.compile(r"\b(A100|A800|A30)\b")


@dataclass(frozen=True)
class Sensor:
    """A power sensor: the mean that it shows, and the share of the time that it looks."""

    mean_s: float
    """0 where it shows the moment."""
    seen_share: float

    @property
    def words(self) -> str:
        """In one line, with what follows from it."""
        shows = f"a mean over {self.mean_s:g} s" if self.mean_s else "the moment"
        if self.seen_share < 1:
            shows += f", looks {100 * self.seen_share:.0f} % of the time: trust windows of seconds, not steps"
        elif self.mean_s:
            shows += ": an edge of the load shows late"
        return f"its power shows {shows}; the sensor itself may be off by {ERROR_PERCENT:g} %"


def sensor_of(architecture: int | None, name: str) -> Sensor:
    """The sensor of a GPU; one of an unknown architecture is taken for a new one."""
    averages = (architecture is None or architecture >= AMPERE) and not _OF_THE_MOMENT.search(name)
    return Sensor(1.0 if averages else 0.0, 0.25 if _PART_TIME.search(name) else 1.0)
