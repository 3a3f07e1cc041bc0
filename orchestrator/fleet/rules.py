"""Keeps the rules of single jobs that a fleet does not know: pauses, budgets, and going on where stopping saves little.
In: a FleetPlan and its jobs' Problems. Out: the FleetPlan with those jobs planned by `plan` in the room that is left.
`orchestrator.planner` asks for it after each solve; a fleet without such jobs stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta

from orchestrator.fleet.apart import Apart, Spans
from orchestrator.fleet.problem import FleetJob
from orchestrator.fleet.state import FleetPlan
from orchestrator.plan import plan
from orchestrator.plan.problem import Plan, Problem

_POLICY = "optimal"
_FEW = 30
"""So many jobs are each looked at once more; thousands would take minutes, and gain next to nothing."""
_LONGER = 6
"""How often a job that must not pause more looks twice as far past its deadline for room in one piece."""


def ruled(
    planned: FleetPlan, jobs: Collection[FleetJob], problems: Mapping[str, Problem], only: Collection[str]
) -> FleetPlan:
    """`planned` with those of the jobs `only` planned anew whose rules ask for it, the more important first.

    In a small fleet the others are, too, where that emits less.
    """
    by_rule = {job.job_id for job in jobs if _asks(problems[job.job_id], planned.plans[job.job_id])}
    asked = [job for job in jobs if job.job_id in only and (job.job_id in by_rule or len(jobs) <= _FEW)]
    if not asked:
        return planned
    apart = Apart(planned, jobs)
    for job in sorted(asked, key=lambda job: (-job.priority, _since(job), job.job_id)):
        problem, before = problems[job.job_id], planned.plans[job.job_id]
        problem = replace(problem, spare_s=max(problem.spare_s, job.spare_s))
        made = _planned(problem, apart.full(job.job_id)) if problem.work_steps > 0 else None
        if made is not None and (job.job_id in by_rule or _is_better(made, before)):
            apart.put(job.job_id, made)
    return apart.result


def _is_better(made: Plan, before: Plan) -> bool:
    return before.misses_deadline or made.emissions_g < before.emissions_g * (1 - 1e-9)


def within(problem: Problem, full: Mapping[int, Mapping[str, Spans]]) -> Plan | None:
    """The plan of least grams that meets the deadline in the room that is left; None where there is none.

    `full` says by worker count and zone when the room does not suffice for so many.
    """
    best: Plan | None = None
    for workers, spans in full.items():
        zones = {
            zone: replace(
                option,
                points=tuple(point for point in option.points if point.workers <= workers),
                full=spans.get(zone, ()),
            )
            for zone, option in problem.zones.items()
        }
        zones = {zone: option for zone, option in zones.items() if option.points}
        if not zones:
            continue
        made = plan(replace(problem, zones=zones), _POLICY)
        is_in_time = not made.misses_deadline or not made.slots
        if is_in_time and _has_room(made, spans) and (best is None or made.emissions_g < best.emissions_g):
            best = made
    return best


def _has_room(made: Plan, spans: Mapping[str, Spans]) -> bool:
    """Whether it does without full time; `soonest` takes that as any other."""
    near = timedelta(milliseconds=1)
    return not any(
        slot.start < end - near and start + near < slot.end for slot in made.slots for start, end in spans[slot.zone]
    )


def _asks(problem: Problem, made: Plan) -> bool:
    if problem.work_steps <= 0:
        return False
    return (
        problem.min_run_s > 0
        or problem.max_pauses is not None
        or problem.budget_g is not None
        or (_stops(problem, made) and _is_uncertain(problem))
    )


def _stops(problem: Problem, made: Plan) -> bool:
    """Whether the plan stops what runs."""
    current, slot = problem.current, made.at(problem.now)
    return current is not None and (slot is None or (slot.zone, slot.mode) != (current.zone, current.mode))


def _is_uncertain(problem: Problem) -> bool:
    return any(part.spread_g_per_kwh > 0 for option in problem.zones.values() for part in option.curve)


def _planned(problem: Problem, full: Mapping[int, Mapping[str, Spans]]) -> Plan | None:
    """The plan that keeps the rules; None where the fleet's is better."""
    made = within(problem, full)
    if made is not None:
        return made
    if problem.max_pauses is None and problem.budget_g is None:
        return None
    span = max(problem.deadline - problem.now, timedelta(seconds=problem.slot_s))
    for doubled in range(_LONGER):
        later = within(replace(problem, deadline=problem.deadline + span * 2**doubled), full)
        if later is not None:
            return replace(later, misses_deadline=later.finish_at > problem.deadline)
    return None


def _since(job: FleetJob) -> float:
    return job.waiting_since.timestamp() if job.waiting_since is not None else float("inf")
