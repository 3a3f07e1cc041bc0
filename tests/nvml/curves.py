"""The stand-in's power curves in Python: what every joule should have been.
In: a shape and UNIX times. Out: the exact energy between them, in J.
Keep in step with `within` in nvml.c; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cluster.api import MeterRow

_BURSTS = ((0.0, 0.3), (2.0, 2.6), (7.0, 8.5))
_PERIOD_S = {"square": 4.0, "sawtooth": 5.0, "bursty": 10.0, "constant": 10.0}


def _within_j(shape: str, in_s: float, limit_w: float) -> float:
    if shape == "square":
        return min(400, limit_w) * min(in_s, 2.0) + min(100, limit_w) * max(0.0, in_s - 2)
    if shape == "sawtooth":
        free_s = min(in_s, max(0.0, (limit_w - 80) / 60))
        return 80 * free_s + 30 * free_s * free_s + (limit_w * (in_s - free_s) if in_s > free_s else 0.0)
    if shape == "bursty":
        high_w, low_w = min(500, limit_w), min(60, limit_w)
        return low_w * in_s + sum((high_w - low_w) * max(0.0, min(in_s, end) - start) for start, end in _BURSTS)
    return min(250, limit_w) * in_s


def energy_j(shape: str, start_s: float, end_s: float, limit_w: float = math.inf) -> float:
    """Exact energy in J that a device of `shape` draws from `start_s` to `end_s` (UNIX s, epoch 0) under a limit."""
    period_s = _PERIOD_S[shape]

    def since_epoch_j(at_s: float) -> float:
        periods, in_s = divmod(at_s, period_s)
        return periods * _within_j(shape, period_s, limit_w) + _within_j(shape, in_s, limit_w)

    return since_epoch_j(end_s) - since_epoch_j(start_s)


def exact_j(shape: str, rows: Sequence[MeterRow], limit_w: float = math.inf) -> float:
    """Exact energy in J over the spans of `rows`, under a limit."""
    return math.fsum(energy_j(shape, row.start.timestamp(), row.end.timestamp(), limit_w) for row in rows)
