"""Policy `observe`: what a plan would have saved, beside a job that runs at once.
In: a Problem of the whole job, and the plan that it runs by. Out: an Observed.
The controller keeps it from the first plan whose figures are measured; the report charges its slots by what came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.plan.problem import Observed, Plan, Problem

_SAYS = "; a plan would save"


def observed(problem: Problem, plan: Callable[[Problem, str], Plan], work_steps: float | None = None) -> Observed:
    """The best plan for `problem` as if nothing had run, and the one that starts at once, for `work_steps` of work."""
    work = problem.work_steps if work_steps is None else work_steps
    asked = replace(problem, current=None, last_zone=None, budget_g=None, work_steps=work)
    best, at_once = plan(asked, "optimal"), plan(asked, "now")
    return Observed(
        basis=problem.basis,
        slots=best.slots,
        emissions_g=best.emissions_g,
        energy_j=best.energy_j,
        now_emissions_g=at_once.emissions_g,
        now_energy_j=at_once.energy_j,
    )


def observing(made: Plan, seen: Observed) -> Plan:
    """`made` with what was observed, which its reason tells too."""
    why = made.reason.partition(_SAYS)[0]
    return replace(made, observed=seen, reason=f"{why}{_SAYS} {seen.saved_percent:.0f} %" if seen.slots else why)
