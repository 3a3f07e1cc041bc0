"""Plans made anew at every slot by forecasts that err: few stops, little lost by it, the deadline kept.
In: seeded noise on a daily curve. Out: pass or fail.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import pytest

from orchestrator.plan import Current, PauseCost, Problem, Stretch, ZoneOption, plan
from tests.unit.orchestrator.plan.problems import ONE_KW, at, problem

H = 3600.0
RESUME_S = 120.0


@dataclass
class Lived:
    """What became of a job that was planned anew each hour."""

    stops: int
    emissions_g: float
    finish_h: float


def truth(hour: float, seed: int) -> float:
    return 350.0 + 60.0 * math.sin((hour + 5 * seed) / 24 * 2 * math.pi) + 15.0 * math.sin(hour * 1.7 + seed)


def lived(seed: int, sigma: float, told: bool, work_h: float = 12.0, due_h: int = 36) -> Lived:
    """Errors grow with the lead time to `sigma`; `told` is whether the forecast gives its interval."""
    rng, left_s, running, emitted, stops = random.Random(seed), work_h * H, False, 0.0, 0
    finish_h = 0.0
    for hour in range(due_h + 24):
        if left_s <= 1.0:
            break
        curve = []
        for ahead in range(due_h + 1 - min(hour, due_h)):
            spread = sigma * min(1.0, ahead / 6)
            g = max(1.0, truth(hour + ahead, seed) + rng.gauss(0.0, spread))
            start = at((hour + ahead) * H)
            interval = 1.28 * spread if told else 0.0
            curve.append(Stretch(start, at((hour + ahead + 1) * H), g, spread_g_per_kwh=interval))
        asked = Problem(
            now=at(hour * H),
            deadline=at(max(due_h, hour) * H),
            work_steps=left_s,
            zones={"A": ZoneOption(tuple(curve), (ONE_KW,))},
            slot_s=H,
            pause=PauseCost(RESUME_S),
            started=True,
            current=Current("A", 1) if running else None,
        )
        slots = plan(asked, "optimal").slots
        began, start_s = running, 0.0 if running else RESUME_S
        for slot in slots:
            begin_s = (slot.start - asked.now).total_seconds()
            used_s = min((slot.end - asked.now).total_seconds(), H) - begin_s
            if used_s <= 0:
                break
            stops += began and begin_s > 0
            start_s, began = (0.0 if running and begin_s == 0 else RESUME_S), True
            left_s -= max(0.0, used_s - start_s)
            emitted += truth(hour, seed) * used_s / H
            finish_h = hour + (begin_s + used_s) / H
            running = begin_s + used_s >= H
        else:
            continue
        if not slots or (slots[0].start - asked.now).total_seconds() >= H:
            stops += running
            running = False
    assert left_s <= 1.0
    return Lived(stops, emitted, finish_h)


@pytest.mark.parametrize("sigma", [30.0, 80.0])
def test_a_forecast_that_tells_its_interval_stops_a_job_less_often_and_costs_no_more(sigma: float) -> None:
    jumpy = [lived(seed, sigma, told=False) for seed in range(16)]
    calm = [lived(seed, sigma, told=True) for seed in range(16)]
    assert sum(each.stops for each in calm) < 0.8 * sum(each.stops for each in jumpy)
    assert sum(each.emissions_g for each in calm) <= 1.005 * sum(each.emissions_g for each in jumpy)
    assert max(each.finish_h for each in calm) <= 36 + 1e-6


def running(spread: float) -> Problem:
    """It runs at 200 g/kWh, and the clean hours after two dirty ones promise a saving of a tenth."""
    prices = [200.0, 200.0, 210.0, 180.0, 180.0, 180.0, 180.0]
    asked = problem({"A": prices}, 3 * H, pause=(60.0, 0.0), started=True, current=Current("A", 1))
    zone = asked.zones["A"]
    told = tuple(replace(part, spread_g_per_kwh=spread) for part in zone.curve)
    return replace(asked, zones={"A": replace(zone, curve=told)})


def test_what_runs_stops_for_a_saving_that_the_forecast_can_tell_and_goes_on_for_one_that_it_cannot() -> None:
    assert plan(running(0.0), "optimal").slots[0].start == at(3 * H)
    assert plan(running(5.0), "optimal").slots[0].start == at(3 * H)
    assert plan(running(80.0), "optimal").slots[0].start == at(0)


def test_a_plan_is_done_before_the_deadline_by_what_speeds_vary_where_it_can_be() -> None:
    asked = problem({"A": [300.0] * 5 + [100.0] * 3}, 3 * H, spare_s=1800.0)
    assert plan(asked, "optimal").finish_at == at(7.5 * H)
    tight = replace(asked, work_steps=7.8 * H)
    assert plan(tight, "optimal").finish_at == at(8 * H)
    assert not plan(tight, "optimal").misses_deadline
