"""What no plan of an elastic job can beat, and what the best plan over whole slots emits: written without the planner.
In: prices of equal slots, throughput and watts by worker count, the work. Out: grams.
`tests.bench.simulation` measures the policies against both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.plan import J_PER_KWH, OperatingPoint

Floats = npt.NDArray[np.float64]


def hull(points: Sequence[OperatingPoint]) -> list[tuple[float, float]]:
    """Lower convex hull of (throughput, watts) with standing still, by rising throughput (Andrew's monotone chain)."""
    found: list[tuple[float, float]] = []
    for speed, watts in sorted({(0.0, 0.0), *((point.steps_per_s, point.power_w) for point in points)}):
        while len(found) > 1 and _is_above(found[-2], found[-1], (speed, watts)):
            found.pop()
        found.append((speed, watts))
    return found


def hull_g(g_per_kwh: Floats, slot_s: float, points: Sequence[OperatingPoint], work_steps: float) -> float:
    """Grams of the linear relaxation: points mixed at will within a slot, no start costs.

    Along the hull each slot's marginal grams per step rise, so taking the least of all slots first is optimal.
    """
    corners = hull(points)
    speeds, watts = np.diff([speed for speed, _ in corners]), np.diff([power for _, power in corners])
    g_per_step = (g_per_kwh[:, None] * watts / speeds / J_PER_KWH).ravel()
    steps = np.broadcast_to(speeds * slot_s, (len(g_per_kwh), len(speeds))).ravel()
    order = np.argsort(g_per_step, kind="stable")
    taken = np.clip(work_steps - (np.cumsum(steps[order]) - steps[order]), 0.0, steps[order])
    if taken.sum() < work_steps * (1 - 1e-9):
        raise ValueError("the work does not fit into the slots")
    return float(taken @ g_per_step[order])


def whole_slots_g(g_per_kwh: Floats, slot_s: float, points: Sequence[OperatingPoint], work_steps: float) -> float:
    """Grams of the best choice of one point (or none) a slot, one slot used in part, no start costs: an exact MILP."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    slots, count = len(g_per_kwh), len(points)
    # In parts of the work and of the dearest slot, so that the solver sees numbers near one.
    steps = np.tile([point.steps_per_s * slot_s / work_steps for point in points], slots)
    grams = np.repeat(g_per_kwh, count) * np.tile([point.power_w * slot_s / J_PER_KWH for point in points], slots)
    unit_g = max(float(grams.max()), 1e-12)
    grams = grams / unit_g
    size = slots * count
    # Variables by slot and point: used whole (0 or 1), used in part (0 or 1), and how much of it (0 to 1).
    by_slot, eye, zero = np.kron(np.eye(slots), np.ones(count)), np.eye(size), np.zeros((size, size))
    rules = [
        LinearConstraint(np.hstack([by_slot, by_slot, 0 * by_slot]), -np.inf, 1),
        LinearConstraint(np.hstack([zero, -eye, eye]), -np.inf, 0),
        LinearConstraint(np.concatenate([0 * steps, 0 * steps + 1, 0 * steps]), -np.inf, 1),
        LinearConstraint(np.concatenate([steps, 0 * steps, steps]), 1.0, np.inf),
    ]
    answer = milp(
        np.concatenate([grams, 0 * grams, grams]),
        constraints=rules,
        integrality=np.repeat([1, 1, 0], size),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-6},
    )
    if answer.x is None:
        raise ValueError(f"no whole slots do the work: {answer.message}")
    return float(answer.fun) * unit_g


def _is_above(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Whether the middle one lies on or above the line between the others."""
    rise = (last[1] - first[1]) * (middle[0] - first[0])
    return (middle[1] - first[1]) * (last[0] - first[0]) >= rise
