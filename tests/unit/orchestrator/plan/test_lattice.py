"""Cells begin where anything changes, and unknown time is priced by the rule of the module.
In: problems with odd edges and gaps. Out: pass or fail.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.plan.lattice import lattice
from tests.unit.orchestrator.plan.problems import problem


def test_edges_are_now_the_deadline_slot_multiples_and_window_edges() -> None:
    cells = lattice(
        problem({"A": [1.0] * 3}, 60.0, now_s=600.0, deadline_s=9000.0, windows_s=[(1200.0, 4000.0), (8000.0, 99999.0)])
    )
    assert (cells.edge_s + 600.0).tolist() == [600.0, 1200.0, 3600.0, 4000.0, 7200.0, 8000.0, 9000.0]
    assert cells.is_open.tolist() == [False, True, True, False, False, True]


def test_a_cell_averages_the_known_part_of_the_curve() -> None:
    cells = lattice(problem({"A": [100.0, 300.0, None, 500.0]}, 60.0, slot_s=3600.0))
    assert cells.g_per_kwh.tolist() == [[100.0, 300.0, 500.0, 500.0]]
    assert cells.unknown_share.tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_slots_longer_than_those_of_the_curve_take_the_mean_with_what_is_unknown_at_the_worst() -> None:
    asked = replace(problem({"A": [100.0, 300.0, None, 200.0]}, 60.0), slot_s=7200.0)
    cells = lattice(asked)
    assert cells.g_per_kwh.tolist() == [[200.0, 250.0]]
    assert cells.unknown_share.tolist() == [[0.0, 0.5]]


def test_a_renewable_share_is_averaged_over_what_is_known_of_it() -> None:
    shares = {"A": [40.0, 80.0, None, 110.0, None, None]}
    asked = replace(problem({"A": [100.0] * 6}, 60.0, shares=shares), slot_s=7200.0)
    assert np.array_equal(lattice(asked).renewable_percent, [[60.0, 110.0, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ({"A": [100.0, None]}, [[100.0, 100.0]]),  # the zone's worst known
        ({"A": [100.0, 700.0], "B": [None, None]}, [[100.0, 700.0], [700.0, 700.0]]),  # the worst of any zone
        ({"A": [None, None]}, [[1.0, 1.0]]),  # nothing known anywhere
        ({"A": []}, [[1.0, 1.0]]),
        ({"A": [0.0, None]}, [[0.0, 0.0]]),  # known to be zero is not missing
    ],
)
def test_unknown_time_is_priced_at_the_worst_known(
    curves: dict[str, list[float | None]], expected: list[list[float]]
) -> None:
    assert lattice(problem(curves, 60.0, deadline_s=7200.0)).g_per_kwh.tolist() == expected


def test_the_time_after_the_last_edge_is_unknown() -> None:
    cells = lattice(problem({"A": [100.0, 200.0]}, 60.0))
    assert cells.price_at(0, 1e6) == 200.0
    assert np.array_equal(cells.g_s_per_kwh, [[0.0, 360_000.0, 1_080_000.0]])
