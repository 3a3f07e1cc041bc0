"""Operating points between measured ones, and what is measured first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.points import points, to_measure
from orchestrator.plan.problem import Mode, OperatingPoint

MODES: tuple[Mode, ...] = tuple((workers, limit) for workers in (8, 4, 2, 1) for limit in (400, 300))


def measured(*found: tuple[int, int | None, float, float]) -> dict[Mode, OperatingPoint]:
    return {(n, limit): OperatingPoint(n, steps_per_s, power_w, limit) for n, limit, steps_per_s, power_w in found}


def test_the_widest_the_narrowest_and_each_limit_at_the_widest_are_measured() -> None:
    asked: list[Mode] = []
    while (mode := to_measure(MODES, [], asked)) is not None:
        asked.append(mode)
    assert asked == [(8, 400), (1, 400), (8, 300)]


def test_a_mode_that_was_tried_or_measured_is_not_asked_for_again() -> None:
    assert to_measure(((2, None),), [(2, None)], []) is None
    assert to_measure(((2, None),), [], [(2, None)]) is None


def test_nothing_is_assumed_of_a_width_beyond_the_measured_ones() -> None:
    known = measured((4, 400, 3.0, 1600.0), (2, 400, 2.0, 800.0))
    assert [point.mode for point in points(MODES, known)] == [(4, 400), (2, 400)]


def test_a_limit_has_the_same_effect_at_every_width_until_it_is_measured_there() -> None:
    known = measured((8, 400, 6.0, 3200.0), (1, 400, 1.0, 400.0), (8, 300, 5.4, 2400.0))
    found = {point.mode: point for point in points(MODES, known)}
    assert set(found) == set(MODES)
    assert found[1, 300].steps_per_s == pytest.approx(0.9)
    assert found[1, 300].power_w == pytest.approx(300.0)
    assert found[4, 300].steps_per_s == pytest.approx(0.9 * found[4, 400].steps_per_s)


@given(st.floats(0.1, 10), st.floats(1.01, 8.0), st.floats(50, 700), st.floats(50, 700))
def test_a_point_between_lies_between(slow: float, speed_up: float, low_w: float, more_w: float) -> None:
    known = measured((1, None, slow, low_w), (8, None, slow * speed_up, low_w + more_w))
    between = points(tuple((n, None) for n in (8, 4, 2, 1)), known)
    rates, watts = [p.steps_per_s for p in between], [p.power_w for p in between]
    assert rates == sorted(rates, reverse=True) and watts == sorted(watts, reverse=True)
    steps = [1 / rate for rate in rates]
    # The time a step is a straight line over 1 / n.
    assert (steps[2] - steps[0]) * (1 - 1 / 8) == pytest.approx((steps[3] - steps[0]) * (1 / 2 - 1 / 8), abs=1e-9)
