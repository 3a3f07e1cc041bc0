"""The learning rate as a pure function of the step: no state to save, the same at every width.
In: the step, the total, the peak and the warm-up. Out: the learning rate of that step.
jobs.engine sets it before the step.
"""

from __future__ import annotations

import math

FLOOR = 0.1
"""Share of the peak at the last step."""


def learning_rate(step: int, steps: int, peak: float, warmup_steps: int) -> float:
    """Linear warm-up over `warmup_steps`, then a cosine from `peak` to FLOOR of it; `step` counts from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - 1 - warmup_steps))
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))
