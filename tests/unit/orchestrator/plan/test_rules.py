"""How long a segment runs at least, and how many pauses there may be: kept exactly by `optimal`, and by all others.
In: small problems, and a three-day one. Out: pass or fail.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest

from orchestrator.plan import POLICIES, Current, OperatingPoint, Plan, Problem, plan
from tests.unit.orchestrator.plan.problems import ONE_KW, at, problem

H = 3600.0
WIDE = OperatingPoint(workers=2, steps_per_s=1.8, power_w=1900.0)


def lengths_s(planned: Plan) -> list[float]:
    return [(slot.end - slot.start).total_seconds() for slot in planned.slots]


def gaps(planned: Plan) -> int:
    return sum(later.start > earlier.end for earlier, later in itertools.pairwise(planned.slots))


def up_and_down(hours: int = 24) -> list[float]:
    """Every second hour is clean, and the later ones a little more so."""
    return [(100.0 if hour % 2 else 500.0) - hour for hour in range(hours)]


def test_a_segment_runs_at_least_as_long_as_asked() -> None:
    free = plan(problem({"A": up_and_down()}, 6 * H, pause=(60.0, 0.0)), "optimal")
    assert min(lengths_s(free)[:-1]) < 3 * H
    asked = problem({"A": up_and_down()}, 6 * H, pause=(60.0, 0.0), min_run_s=3 * H)
    planned = plan(asked, "optimal")
    assert min(lengths_s(planned)[:-1], default=math.inf) >= 3 * H
    assert planned.emissions_g > free.emissions_g


@pytest.mark.parametrize("most", range(5))
def test_there_are_no_more_pauses_than_asked(most: int) -> None:
    made = [
        plan(problem({"A": up_and_down()}, 6 * H, pause=(60.0, 0.0), max_pauses=each), "optimal")
        for each in (most, most + 1)
    ]
    assert gaps(made[0]) == most
    assert made[0].emissions_g > made[1].emissions_g


def test_what_runs_is_not_stopped_before_its_time() -> None:
    asked = problem(
        {"A": [500.0] * 4 + [100.0] * 8}, 4 * H, pause=(60.0, 0.0), current=Current("A", 1, ran_s=900.0), min_run_s=H
    )
    assert plan(asked, "optimal").slots[0].end == at(2700)
    assert plan(replace(asked, current=Current("A", 1, ran_s=3600.0)), "optimal").slots[0].start == at(4 * H)


def test_a_running_job_with_no_pause_left_goes_on_to_its_end() -> None:
    asked = problem({"A": [500.0] * 4 + [100.0] * 8}, 4 * H, current=Current("A", 1), max_pauses=0)
    planned = plan(asked, "optimal")
    assert (planned.slots[0].start, planned.slots[-1].end, len(planned.slots)) == (at(0), at(4 * H), 1)


def test_the_end_of_a_window_is_no_pause_and_cuts_a_segment_that_filled_it() -> None:
    windows = [(0.0, 2 * H), (6 * H, 8 * H), (12 * H, 20 * H)]
    asked = problem({"A": [300.0] * 24}, 5 * H, windows_s=windows, max_pauses=0, min_run_s=3 * H, pause=(60.0, 0.0))
    planned = plan(asked, "optimal")
    assert not planned.misses_deadline
    assert gaps(planned) <= 1  # two hours in the short windows, or all of it in the long one


def test_the_deadline_wins_over_the_length_of_a_segment() -> None:
    asked = problem({"A": [300.0] * 6}, 3.5 * H, windows_s=[(0.0, 1 * H), (3 * H, 6 * H)], now_s=600.0, min_run_s=2 * H)
    planned = plan(asked, "optimal")
    assert not planned.misses_deadline
    assert planned.slots[0].end <= at(H)


def test_bounds_win_over_the_length_of_a_segment_and_pauses_over_bounds() -> None:
    prices = [500.0, 100.0, 500.0, 500.0, 100.0, 500.0, 500.0, 100.0]
    short = problem({"A": prices}, 2 * H, max_g_per_kwh=200.0, min_run_s=1.5 * H, started=True)
    assert gaps(plan(short, "optimal")) == 1
    unbroken = plan(replace(short, min_run_s=0.0, max_pauses=0), "optimal")
    assert gaps(unbroken) == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_both_rules(policy: str) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        prices = [rng.uniform(50, 800) for _ in range(24)]
        current = Current("A", 1, ran_s=rng.choice([0.0, 1800.0])) if rng.random() < 0.5 else None
        asked = problem(
            {"A": prices},
            rng.uniform(2, 12) * H,
            points=(ONE_KW, WIDE),
            pause=(60.0, 0.0),
            started=True,
            current=current,
            min_run_s=2 * H,
            max_pauses=rng.randint(0, 2),
        )
        planned = plan(asked, policy)
        assert not planned.misses_deadline
        first, lengths = planned.slots[0], lengths_s(planned)
        goes_on = current is not None and (first.start, first.workers) == (asked.now, current.workers)
        before_s = current.ran_s if current and goes_on else 0.0
        lengths[0] += before_s
        assert min(lengths[:-1], default=math.inf) >= 2 * H - 1e-3, (policy, seed)
        stops_now = current is not None and planned.slots[0].start > asked.now
        assert gaps(planned) + stops_now <= (asked.max_pauses or 0), (policy, seed)


def least_g(asked: Problem, prices: list[float], hours: int) -> float:
    """Least grams of a way (or none) for each hour, one hour used in part, no segment but the last too short."""
    points, best = asked.zones["A"].points, math.inf
    for chosen in itertools.product(range(-1, len(points)), repeat=hours):
        for part, early in itertools.product((h for h, way in enumerate(chosen) if way >= 0), (True, False)):
            runs = segments(chosen, part, early)
            starts = sum(points[way].steps_per_s * asked.pause.resume_s for way, _ in runs)
            whole = sum(points[way].steps_per_s * H for h, way in enumerate(chosen) if way >= 0 and h != part)
            used_h = (asked.work_steps + starts - whole) / points[chosen[part]].steps_per_s / H
            if not 0 <= used_h <= 1:
                continue
            lengths = [sum(used_h if h == part else 1.0 for h in cells) for _, cells in runs]
            if all(length * H >= asked.min_run_s - 1e-6 for length in lengths[:-1]):
                grams = sum(
                    points[way].power_w / 1000 * prices[h] * (used_h if h == part else 1.0)
                    for h, way in enumerate(chosen)
                    if way >= 0
                )
                best = min(best, grams)
    return best


def segments(chosen: tuple[int, ...], part: int, early: bool) -> list[tuple[int, list[int]]]:
    """Ways and hours of the segments; the hour used in part has its rest after it (early) or before it."""
    found: list[tuple[int, list[int]]] = []
    for hour, way in enumerate(chosen):
        joins = bool(found) and found[-1][0] == way and found[-1][1][-1] == hour - 1
        if hour == part and not early or hour - 1 == part and early:
            joins = False
        if way >= 0 and joins:
            found[-1][1].append(hour)
        elif way >= 0:
            found.append((way, [hour]))
    return found


@pytest.mark.parametrize("seed", range(24))
def test_segments_of_a_least_length_emit_what_the_best_of_all_plans_does(seed: int) -> None:
    rng = random.Random(seed)
    hours, points = (7, (ONE_KW,)) if seed % 2 else (5, (ONE_KW, WIDE))
    prices = [rng.uniform(50, 800) for _ in range(hours)]
    asked = problem(
        {"A": prices},
        rng.uniform(0.5, 0.8 * hours) * H,
        points=points,
        pause=(rng.choice([0.0, 300.0]), 0.0),
        started=True,
        min_run_s=rng.choice([1, 2, 3]) * H,
    )
    planned = plan(asked, "optimal")
    assert min(lengths_s(planned)[:-1], default=math.inf) >= asked.min_run_s - 1e-3
    # It may come out below, as two ways may share an hour.
    assert planned.emissions_g <= least_g(asked, prices, hours) * (1 + 1e-3)
