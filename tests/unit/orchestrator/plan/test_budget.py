"""What is planned where the grams of a budget are few: the cheapest plan, a later one, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.plan import plan
from tests.unit.orchestrator.plan.problems import at, problem

H = 3600.0
ASKED = problem({"A": [500.0] * 4 + [300.0] * 4 + [100.0] * 4}, 2 * H, deadline_s=8 * H)


@pytest.mark.parametrize("policy", ["now", "slots", "optimal"])
def test_enough_changes_nothing(policy: str) -> None:
    free = plan(ASKED, policy)
    assert plan(replace(ASKED, budget_g=free.emissions_g), policy) == free


def test_a_policy_that_would_emit_too_much_gives_over_to_the_cheapest_plan() -> None:
    planned = plan(replace(ASKED, budget_g=700.0), "now")
    assert (planned.policy, planned.emissions_g, planned.misses_deadline) == ("now", pytest.approx(600.0), False)
    assert planned.reason.endswith("; now would emit 1e+03 g of the 700 g left")


def test_the_deadline_yields_to_the_budget_as_far_as_the_forecast_reaches() -> None:
    planned = plan(replace(ASKED, budget_g=250.0), "optimal")
    assert (planned.slots[0].start, planned.emissions_g) == (at(8 * H), pytest.approx(200.0))
    assert planned.misses_deadline
    assert "the deadline yields to the budget, 250 g left" in planned.reason


@pytest.mark.parametrize("left_g", [199.0, 0.0, -5.0])
def test_where_no_plan_is_within_the_budget_nothing_runs_and_the_plan_says_what_is_missing(left_g: float) -> None:
    planned = plan(replace(ASKED, budget_g=left_g), "optimal")
    assert planned.slots == ()
    assert planned.misses_deadline
    assert planned.reason == (
        f"held by carbon.budget: the rest would emit 200 g at least, {max(0.0, left_g):.3g} g are left"
    )


def test_assumed_watts_hold_nothing_up() -> None:
    assert plan(replace(ASKED, budget_g=1.0, basis="assumed"), "optimal").slots
