"""From a job to a Problem: when its window is open, and what its first start costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from jobs.spec import JobSpec
from jobs.spec.job import Carbon
from orchestrator.controller.frame import Framing, basis_of, deadline, frame, modes_of, opening
from orchestrator.controller.learn import Learned
from orchestrator.controller.outlook import Outlook
from orchestrator.plan import plan
from orchestrator.plan.problem import Current, OperatingPoint, PauseCost, PlannedSlot, Problem, Stretch
from orchestrator.site import Site

T0 = datetime(2026, 3, 1, 22, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SITE = Site.model_validate({"zones": {"DE": {"provider": "demo"}}, "slot": "1h"})
SPEC = JobSpec.model_validate(
    {
        "name": "tiny",
        "job": "train",
        "model": {"config": {"model_type": "llama"}},
        "data": {"files": ["x.txt"]},
        "training": {"steps": 3600, "batch_size": 8},
        "carbon": {"windows": ["0 22 * * * 8h"]},
    }
)
FRAMING = Framing(
    spec=SPEC,
    submitted_at=T0,
    now=T0,
    step=0,
    steps=3600,
    learned=Learned({(1, None): OperatingPoint(1, 1.0, 300.0)}, PauseCost(60.0), stop_s=15.0),
    curves={"DE": Outlook((Stretch(T0, T0 + 48 * HOUR, 300.0),))},
    modes={"DE": ((1, None),)},
    current=None,
    has_run=False,
    last_zone=None,
    window_end=None,
)


@pytest.mark.parametrize("passed_s", [0, 3600, 7 * 3600, 8 * 3600 - 20, 8 * 3600 - 15.1])
def test_a_window_closes_at_the_same_moment_whenever_it_is_asked(passed_s: float) -> None:
    when = opening(replace(FRAMING, now=T0 + timedelta(seconds=passed_s)))
    assert (when.open, when.closes_at) == (True, T0 + 8 * HOUR - timedelta(seconds=15))


def test_the_last_seconds_of_a_window_start_nothing() -> None:
    assert not opening(replace(FRAMING, now=T0 + 8 * HOUR - timedelta(seconds=14))).open
    assert not opening(replace(FRAMING, now=T0 + 9 * HOUR)).open


def test_a_window_of_the_command_line_cuts_the_jobs_own() -> None:
    when = opening(replace(FRAMING, window_end=T0 + HOUR))
    assert when.closes_at == T0 + HOUR - timedelta(seconds=15)
    assert opening(replace(FRAMING, window_end=T0)).spans == ()


def test_without_windows_it_is_always_open() -> None:
    spec = SPEC.model_copy(update={"carbon": SPEC.carbon.model_copy(update={"windows": []})})
    when = opening(replace(FRAMING, spec=spec))
    assert (when.spans, when.open, when.closes_at) == (None, True, None)


def test_a_measured_first_start_takes_its_time() -> None:
    problem = frame(FRAMING, None, SITE)
    assert isinstance(problem, Problem)
    assert (problem.started, problem.basis, problem.work_steps) == (True, "measured", 3600)


def test_the_bounds_of_the_spec_and_what_is_known_of_the_zone_reach_the_planner() -> None:
    bounds = SPEC.carbon.model_copy(update={"max_intensity_g_per_kwh": 350.0, "min_renewable_percent": 60.0})
    stale = Outlook((Stretch(T0, T0 + HOUR, 300.0, 41.0),), stale_since=T0 - HOUR)
    framing = replace(FRAMING, spec=SPEC.model_copy(update={"carbon": bounds}), curves={"DE": stale})
    problem = frame(framing, None, SITE)
    assert isinstance(problem, Problem)
    assert (problem.max_g_per_kwh, problem.min_renewable_percent) == (350.0, 60.0)
    assert (problem.zones["DE"].curve[0].renewable_percent, problem.zones["DE"].stale_since) == (41.0, T0 - HOUR)


@pytest.mark.parametrize(("age_h", "known"), [(24, True), (24.01, False)])
def test_a_stale_forecast_is_planned_by_only_while_it_is_young_enough(age_h: float, known: bool) -> None:
    stale = Outlook((Stretch(T0, T0 + HOUR, 300.0),), stale_since=T0 - age_h * HOUR)
    problem = frame(replace(FRAMING, curves={"DE": stale}), None, SITE)
    assert isinstance(problem, Problem)
    assert bool(problem.zones["DE"].curve) is known
    assert ("without a forecast: the last one is too old" in plan(problem, "optimal").reason) is not known


def test_the_default_deadline_is_a_day_or_twice_the_length() -> None:
    assert deadline(FRAMING) == T0 + 24 * HOUR
    assert deadline(replace(FRAMING, steps=24 * 3600)) == T0 + 48 * HOUR


@pytest.mark.parametrize(("calibrates", "left"), [(False, 1), (True, 2)])
def test_the_rules_of_the_spec_reach_the_planner_less_what_has_been(calibrates: bool, left: int) -> None:
    rules = SPEC.carbon.model_copy(update={"min_run_s": 1200.0, "max_pauses": 3})
    framing = replace(FRAMING, spec=SPEC.model_copy(update={"carbon": rules}), pauses=2, calibrates=calibrates)
    problem = frame(replace(framing, current=Current("DE", 1, 300.0)), None, SITE)
    assert isinstance(problem, Problem)
    assert (problem.min_run_s, problem.max_pauses) == (1200.0, left)
    exhausted = frame(replace(framing, pauses=5), None, SITE)
    assert isinstance(exhausted, Problem)
    assert exhausted.max_pauses == 0


def test_a_plan_keeps_time_to_spare_by_what_the_measured_speeds_vary() -> None:
    problem = frame(replace(FRAMING, learned=replace(FRAMING.learned, variation=0.05)), None, SITE)
    assert isinstance(problem, Problem)
    assert problem.spare_s == pytest.approx(180.0)  # of an hour of work


def elastic(**workers: object) -> Framing:
    spec = SPEC.model_copy(
        update={"workers": SPEC.workers.model_copy(update={"count": (1, 4), **workers}), "carbon": Carbon()}
    )
    learned = replace(
        FRAMING.learned,
        points={(4, None): OperatingPoint(4, 2.0, 1200.0), (1, None): OperatingPoint(1, 1.0, 300.0)},
    )
    return replace(FRAMING, spec=spec, learned=learned, modes=modes_of(spec, SITE))


def test_an_elastic_job_may_run_at_every_width_between_the_measured_ones() -> None:
    problem = frame(elastic(), None, SITE)
    assert isinstance(problem, Problem)
    assert [point.workers for point in problem.zones["DE"].points] == [4, 2, 1]
    # Amdahl's law through 1.0 s and 0.5 s a step is 1/3 s + 2/3 s / n.
    assert problem.zones["DE"].points[1].steps_per_s == pytest.approx(1.5)
    assert problem.zones["DE"].points[1].power_w == pytest.approx(600.0)


def test_a_zone_has_the_widths_that_its_gpus_allow_and_what_was_measured_there() -> None:
    zones = {"DE": {}, "FR": {"gpus": 2}, "NO": {"gpus": 0}}
    site = Site.model_validate({"zones": {zone: {"provider": "demo", **given} for zone, given in zones.items()}})
    framing = elastic()
    modes = modes_of(framing.spec, site)
    assert {zone: [workers for workers, _ in those] for zone, those in modes.items()} == {"DE": [4, 2, 1], "FR": [2, 1]}
    faster = {"FR": {(1, None): OperatingPoint(1, 9.0, 700.0)}}
    curves = {"DE": FRAMING.curves["DE"], "FR": FRAMING.curves["DE"]}
    framing = replace(framing, modes=modes, curves=curves, learned=replace(framing.learned, by_zone=faster))
    problem = frame(framing, None, site)
    assert isinstance(problem, Problem)
    assert [(p.workers, p.steps_per_s) for p in problem.zones["FR"].points][-1] == (1, 9.0)
    assert [(p.workers, p.steps_per_s) for p in problem.zones["DE"].points][-1] == (1, 1.0)


def test_a_plan_that_uses_a_width_nobody_ran_is_assumed() -> None:
    framing = elastic()
    slots = [PlannedSlot(T0, T0 + HOUR, "DE", workers) for workers in (4, 2)]
    assert (basis_of(framing, slots[:1]), basis_of(framing, slots)) == ("measured", "assumed")


def test_refused_power_limits_are_left_out() -> None:
    spec = elastic(count=(1, 1), power_limit_w=[300, 400]).spec
    assert modes_of(spec, SITE) == {"DE": ((1, 400), (1, 300))}
    assert modes_of(spec, SITE, unlimited=True) == {"DE": ((1, None),)}
