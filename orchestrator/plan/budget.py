"""A job's carbon budget: what is planned where the grams that are left do not suffice.
In: a Problem with `budget_g`, and what plans by a policy. Out: a Plan within the budget, or one that runs nothing.
`plan` asks it; the controller tells it what the job has emitted so far.

The rule: no plan emits more than is left. Where the policy's own plan would, the plan that emits least by the deadline
is taken. Where even that would, the deadline yields: the plan that emits least until the known forecast ends. Where
that would too, nothing runs and the plan says what is missing; a new forecast may let the job go on. `min_run` and
`max_pauses` hold up no job that has to stop for its budget. Assumed watts are no reason to stop: a budget binds once
the job has been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from orchestrator.plan.problem import Plan, Problem

CHEAPEST = "optimal"

Planner = Callable[[Problem, str], Plan]


def within_budget(problem: Problem, policy: str, plan: Planner) -> Plan:
    """The plan of `policy` that the budget allows, by the rule above."""
    made = plan(problem, policy)
    left_g = problem.budget_g
    if left_g is None or problem.basis == "assumed" or problem.work_steps <= 0 or made.emissions_g <= left_g:
        return made
    cheapest = made if policy == CHEAPEST else plan(problem, CHEAPEST)
    if cheapest.emissions_g <= left_g and not (cheapest.misses_deadline and not made.misses_deadline):
        return _told(cheapest, made, f"{policy} would emit {made.emissions_g:.3g} g of the {left_g:.3g} g left")
    known_until = _known_until(problem)
    if known_until > problem.deadline:
        later = plan(replace(problem, deadline=known_until), CHEAPEST)
        if later.emissions_g <= left_g and not later.misses_deadline:
            late = replace(later, misses_deadline=later.finish_at > problem.deadline)
            return _told(late, made, f"the deadline yields to the budget, {left_g:.3g} g left")
        cheapest = min(cheapest, later, key=lambda found: found.emissions_g)
    return replace(
        cheapest,
        policy=policy,
        slots=(),
        run_now_emissions_g=made.run_now_emissions_g,
        misses_deadline=True,
        reason=f"held by carbon.budget: the rest would emit {cheapest.emissions_g:.3g} g at least, "
        f"{max(0.0, left_g):.3g} g are left",
    )


def _told(plan: Plan, made: Plan, why: str) -> Plan:
    """`plan` in place of the policy's own."""
    return replace(
        plan, policy=made.policy, run_now_emissions_g=made.run_now_emissions_g, reason=f"{plan.reason}; {why}"
    )


def _known_until(problem: Problem) -> datetime:
    """The end of what any zone's curve knows."""
    known = [part.end for zone in problem.zones.values() for part in zone.curve if part.g_per_kwh is not None]
    return max(known, default=problem.deadline)
