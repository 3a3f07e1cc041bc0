"""WHEN, WHERE and HOW WIDE a job runs: pure decisions on values, with no clock, no Ray and no HTTP.
In: a Problem and a policy's name. Out: a Plan.
The controller acts on the slot of the plan that holds the present.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jobs.spec import InputError
from orchestrator.plan.bounds import bounded
from orchestrator.plan.budget import within_budget
from orchestrator.plan.greedy import greedy
from orchestrator.plan.lattice import Lattice, lattice
from orchestrator.plan.now import now, run_now, run_now_g
from orchestrator.plan.observe import observed, observing
from orchestrator.plan.optimal import optimal
from orchestrator.plan.price import J_PER_KWH, Run, price
from orchestrator.plan.problem import (
    Basis,
    Current,
    Observed,
    OperatingPoint,
    PauseCost,
    Plan,
    PlannedSlot,
    Problem,
    Stretch,
    ZoneOption,
)
from orchestrator.plan.reason import reason
from orchestrator.plan.rules import eased, keeping
from orchestrator.plan.slots import slots
from orchestrator.plan.soonest import soonest
from orchestrator.plan.steady import steady
from orchestrator.plan.threshold import threshold
from orchestrator.plan.window import window
from orchestrator.plan.windows import windows

__all__ = [
    "J_PER_KWH",
    "POLICIES",
    "Basis",
    "Current",
    "Observed",
    "OperatingPoint",
    "PauseCost",
    "Plan",
    "PlannedSlot",
    "Problem",
    "Stretch",
    "ZoneOption",
    "plan",
    "run_now",
    "windows",
]

Chooser = Callable[[Lattice], "list[Run] | None"]

POLICIES: Mapping[str, Chooser] = MappingProxyType(
    {
        "observe": now,
        "now": now,
        "threshold": threshold,
        "window": window,
        "slots": slots,
        "greedy": greedy,
        "optimal": optimal,
    }
)
"""From a policy's name in the spec to what chooses its runs (None where it finds none that meet the deadline)."""


def plan(problem: Problem, policy: str) -> Plan:
    """The plan of `policy` for `problem`; the same problem always gives the same plan.

    Slots above `max_g_per_kwh` or below `min_renewable_percent` are used only where the deadline cannot be met without
    them (see `problem`). How `min_run_s` and `max_pauses` are kept `rules` says, and how `budget_g` is, `budget`. Where
    the deadline cannot be met at all the plan is the earliest finish. Raises InputError that names `carbon.policy`,
    `carbon.zones` or `carbon.windows` where the policy does not exist, no zone can run the job, or no window lets it
    advance.
    """
    if policy not in POLICIES:
        raise InputError(f"carbon.policy: {policy!r} is not there yet; choose one of {', '.join(POLICIES)}")
    made = within_budget(problem, policy, _by_policy)
    # Of a job that runs already the first plan tells: what is left of the work is not what was to be saved.
    is_first = policy == "observe" and problem.current is None and problem.work_steps > 0
    return observing(made, observed(problem, _by_policy)) if is_first else made


def _by_policy(problem: Problem, policy: str) -> Plan:
    choose, cells = POLICIES[policy], lattice(problem)
    if problem.work_steps <= 0:
        return _plan(cells, policy, [])
    ruled = (each for within in bounded(cells) for each in eased(within))
    runs = next((runs for each in ruled if (runs := _chosen(each, choose)) is not None), None)
    return _plan(cells, policy, soonest(cells) if runs is None else runs)


def _chosen(cells: Lattice, choose: Chooser) -> list[Run] | None:
    runs = keeping(cells, choose(cells))
    return steady(cells, runs, choose) if runs is not None and choose is optimal else runs


def _plan(cells: Lattice, policy: str, runs: list[Run]) -> Plan:
    problem, bill = cells.problem, price(cells, runs)
    planned = tuple(
        PlannedSlot(cells.moment(run.start_s), cells.moment(run.end_s), run.way.zone, *run.way.mode) for run in runs
    )
    misses_deadline = bool(runs) and cells.moment(bill.finish_s) > problem.deadline
    return Plan(
        policy=policy,
        basis=problem.basis,
        slots=planned,
        finish_at=cells.moment(bill.finish_s),
        emissions_g=bill.emissions_g,
        energy_j=bill.energy_j,
        run_now_emissions_g=run_now_g(cells),
        misses_deadline=misses_deadline,
        unknown_s=bill.unknown_s,
        reason=reason(cells, runs, misses_deadline),
    )
