"""The optimal plan of elastic jobs against programs that know nothing of it: small ones, and recorded grids.
In: seeded random problems; the recorded grids (LOWTIDE_SHARED_DATA, else ../shared/data). Out: pass or fail.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.plan import Current, OperatingPoint, PauseCost, Problem, ZoneOption, plan
from tests.bench.bound import hull_g, whole_slots_g
from tests.unit.orchestrator.plan.problems import problem

pytest.importorskip("scipy", reason="the reference is a mixed-integer program, which scipy solves")

from tests.unit.orchestrator.plan.reference import least_g  # noqa: E402

DATA = Path(os.environ.get("LOWTIDE_SHARED_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
SLOT_S = 600.0
GAP = 1e-3
STARTS = [(0.0, 0.0), (10.0, 0.0), (60.0, 0.0), (60.0, 15.0), (200.0, 0.0), (200.0, 50.0)]
"""Of a start, and of a move besides: much less, or it pays to move at a narrow width and to widen there."""


def small(seed: int) -> Problem:
    """Three to eight slots, one or two zones, one to four points as they come: neither watts nor throughput concave."""
    rng = random.Random(seed)
    slots, zones = rng.randint(3, 8), rng.choice([1, 1, 2])
    points, steps_per_s = list[OperatingPoint](), 0.0
    for width in range(1, rng.randint(1, 4) + 1):
        steps_per_s += rng.uniform(0.4, 1.2)
        points.append(OperatingPoint(width, steps_per_s, rng.uniform(150, 300) + rng.uniform(50, 250) * (width - 1)))
    now_s, end_s = rng.choice([0.0, 0.0, 123.4]), slots * SLOT_S - rng.choice([0.0, 0.0, 200.0])
    pause = rng.choice(STARTS)
    past = rng.choice([{}, {"started": True}, {"started": True, "last_zone": "Z0"}, {"current": Current("Z0", 1)}])
    closes = slots > 4 and rng.random() < 0.3 and pause[0] < 100
    share = rng.uniform(0.1, 0.85) * rng.choice([1.0, 0.5])
    return problem(
        {f"Z{z}": [rng.uniform(50, 800) for _ in range(slots)] for z in range(zones)},
        share * (end_s - now_s) * steps_per_s,
        slot_s=SLOT_S,
        now_s=now_s,
        deadline_s=end_s,
        points=tuple(points),
        pause=pause,
        windows_s=[(0.0, SLOT_S), (2 * SLOT_S, end_s)] if closes else None,
        **past,
    )


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_an_elastic_job_emits_what_the_mixed_integer_program_does(first: int) -> None:
    for seed in range(first, first + 20):
        asked = small(seed)
        best_g, planned = least_g(asked, SLOT_S), plan(asked, "optimal")
        assert planned.misses_deadline == (best_g is None), seed
        if best_g is not None:
            assert planned.emissions_g == pytest.approx(best_g, rel=GAP), seed


@pytest.mark.parametrize("most", [0, 1, 2])
def test_so_many_pauses_cost_no_more_than_the_mixed_integer_program_says(most: int) -> None:
    for seed in range(200, 225):
        asked = replace(small(seed), max_pauses=most, windows=None)  # what is outside a window is no pause
        best_g, planned = least_g(asked, SLOT_S), plan(asked, "optimal")
        assert planned.misses_deadline == (best_g is None), seed
        if best_g is not None:
            assert planned.emissions_g == pytest.approx(best_g, rel=GAP), seed


def recorded(every: int) -> Iterator[tuple[tuple[OperatingPoint, ...], list[float], Problem]]:
    """Elastic jobs on recorded grids: 1 to 8 workers, 24 h of one worker's work, due in 36 h, no start costs."""
    from orchestrator.simulate import Setting, points_of, read_profile, read_recorded, tasks_each

    number = itertools.count()
    for model in ("resnet18", "resnet50", "vgg16"):
        points = points_of(read_profile(DATA / "scale-profiles.yaml", model)[1], (1, 8))
        for path in sorted((DATA / "hourly-2022").glob("*.csv")):
            if path.stem == "oracle":
                continue
            zone = read_recorded(path.stem, path)
            tasks = tasks_each(Setting({path.stem: zone}, 3600.0), 24 * 3600.0, 36 * 3600.0, 149 * 3600.0, points)
            for task in tasks:
                if next(number) % every == 0:
                    curve = zone.came(task.start, task.due)
                    zones = {path.stem: ZoneOption(curve, points)}
                    asked = Problem(task.start, task.due, task.work_steps, zones, 3600.0)
                    yield points, [part.g_per_kwh or 0.0 for part in curve], asked


needs_grids = pytest.mark.skipif(
    not (DATA / "hourly-2022").is_dir(), reason="the recorded grids are not here; set LOWTIDE_SHARED_DATA"
)


@needs_grids
def test_on_recorded_grids_free_starts_reach_the_bound_of_the_hull() -> None:
    import numpy as np

    for points, prices, asked in recorded(11):
        bound_g = hull_g(np.array(prices), 3600.0, points, asked.work_steps)
        assert plan(asked, "optimal").emissions_g == pytest.approx(bound_g, rel=1e-6)


@needs_grids
def test_on_recorded_grids_a_start_of_a_second_costs_no_more_than_whole_slots_do() -> None:
    """The search itself, which free starts do not need: within 0.1 % of whole slots, but for the starts' own cost."""
    import numpy as np

    for points, prices, asked in recorded(149):
        best_g = whole_slots_g(np.array(prices), 3600.0, points, asked.work_steps)
        planned = plan(replace(asked, pause=PauseCost(1.0)), "optimal")
        others = [plan(replace(asked, pause=PauseCost(1.0)), policy) for policy in ("now", "slots", "greedy")]
        assert planned.emissions_g <= best_g * (1 + GAP) + 1e-3 * best_g
        assert planned.emissions_g <= min(other.emissions_g for other in others) * (1 + 1e-9)


def test_a_later_deadline_another_zone_or_one_more_pause_never_emits_more() -> None:
    for seed in range(300, 330):
        asked = small(seed)
        best = plan(replace(asked, max_pauses=1), "optimal")
        if best.misses_deadline:
            continue
        later = replace(asked, deadline=asked.deadline + timedelta(seconds=SLOT_S), max_pauses=1)
        for freer in (replace(asked, max_pauses=2), asked, later):
            assert plan(freer, "optimal").emissions_g <= best.emissions_g * (1 + GAP), seed
