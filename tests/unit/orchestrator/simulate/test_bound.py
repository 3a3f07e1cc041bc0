"""The bounds that the benchmarks hold the policies against, on cases whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan import J_PER_KWH, OperatingPoint, plan
from tests.bench.bound import hull, hull_g, whole_slots_g
from tests.unit.orchestrator.plan.problems import problem

optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed; the benchmark's bounds need it")
H = 3600.0
POINTS = tuple(OperatingPoint(n, speed, watts) for n, speed, watts in [(1, 1.0, 100), (2, 1.5, 300), (3, 2.5, 350)])


def test_the_hull_leaves_out_what_two_others_mixed_do_better() -> None:
    assert hull(POINTS) == [(0.0, 0.0), (1.0, 100.0), (2.5, 350.0)]


def test_the_bound_fills_the_cheapest_marginal_work_first() -> None:
    # Grams per hour of one worker's work: 0.1 and 0.3 for the first worker, 1/6 of a kW by 1 and 3 for the rest.
    assert hull_g(np.array([1.0, 3.0]), H, POINTS, 2.5 * H) == pytest.approx(0.35)
    assert hull_g(np.array([1.0, 3.0]), H, POINTS, 3.0 * H) == pytest.approx(0.35 + 0.5 * 0.3)
    with pytest.raises(ValueError, match="does not fit"):
        hull_g(np.array([1.0, 3.0]), H, POINTS, 5.1 * H)


SMALL = st.lists(st.integers(1, 9).map(float), min_size=2, max_size=4)


@settings(max_examples=30)
@given(SMALL, st.integers(1, 40))
def test_the_bound_is_that_of_a_linear_program(prices: list[float], tenths: int) -> None:
    work = min(tenths / 10, 2.5 * len(prices)) * H
    costs = [g * point.power_w * H / J_PER_KWH for g in prices for point in POINTS]
    steps = [[-point.steps_per_s * H for _ in prices for point in POINTS]]
    shares = np.kron(np.eye(len(prices)), np.ones(len(POINTS)))
    answer = optimize.linprog(costs, np.vstack([steps, shares]), np.concatenate([[-work], np.ones(len(prices))]))
    assert hull_g(np.array(prices), H, POINTS, work) == pytest.approx(answer.fun, rel=1e-6)


@settings(max_examples=30)
@given(SMALL, st.integers(1, 40))
def test_no_policy_beats_the_bound_and_whole_slots_do_not_either(prices: list[float], tenths: int) -> None:
    work = min(tenths / 10, 2.5 * len(prices)) * H
    bound_g = hull_g(np.array(prices), H, POINTS, work)
    assert whole_slots_g(np.array(prices), H, POINTS, work) >= bound_g * (1 - 1e-6)
    for policy in ("now", "threshold", "window", "slots", "greedy", "optimal"):
        assert plan(problem({"A": prices}, work, points=POINTS), policy).emissions_g >= bound_g * (1 - 1e-6)
