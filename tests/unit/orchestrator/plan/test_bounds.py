"""The bounds that a user sets, intensity and renewable share: kept where the deadline allows, and as far as it does.
In: small problems with known, unknown and missing shares. Out: pass or fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from orchestrator.plan import Plan, Problem, plan
from tests.unit.orchestrator.plan.problems import at, problem

H = 3600.0
EPS_S = 1e-3
POLICIES = ["now", "slots", "optimal"]


def hours_of(planned: Plan) -> list[tuple[float, float]]:
    return [
        ((slot.start - at(0)).total_seconds() / H, (slot.end - at(0)).total_seconds() / H) for slot in planned.slots
    ]


def of(shares: Sequence[float | None], work_h: float, prices: Sequence[float | None] | None = None) -> Problem:
    """One zone, flat at 300 g/kWh where no prices are given, and a job that asks for 60 % renewable."""
    return problem({"A": prices or [300.0] * len(shares)}, work_h * H, shares={"A": shares}, min_renewable_percent=60.0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("shares", "work_h", "hours"),
    [
        ([41.0, 75.0, 41.0, 75.0], 2.0, [(1, 2), (3, 4)]),  # only above the bound
        ([41.0, 60.0, 41.0, 110.0], 2.0, [(1, 2), (3, 4)]),  # the bound itself is within, and so is more than all
        ([41.0, None, 75.0, 75.0], 2.0, [(2, 4)]),  # unknown does not count as enough
        ([41.0, None, 41.0, 75.0], 2.0, [(1, 2), (3, 4)]),  # and comes before what is known to be too little
        ([None, None, None, None], 2.0, [(0, 2)]),  # of which nothing is known holds nothing back
    ],
)
def test_a_job_runs_where_the_share_is_known_to_suffice(
    policy: str, shares: list[float | None], work_h: float, hours: list[tuple[float, float]]
) -> None:
    planned = plan(of(shares, work_h), policy)
    assert hours_of(planned) == hours
    assert not planned.misses_deadline


def test_the_deadline_asks_for_no_more_outside_than_it_needs() -> None:
    dirtier_where_renewable = [100.0, 400.0, 100.0, 400.0]
    planned = plan(of([41.0, 75.0, 41.0, 75.0], 2.5, dirtier_where_renewable), "optimal")
    inside = sum(max(0.0, min(end, hour + 1) - max(start, hour)) for start, end in hours_of(planned) for hour in (1, 3))
    assert inside == pytest.approx(2.0)
    assert planned.reason.endswith("; the deadline asks for less than 60 % renewable")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_deadline_that_cannot_be_met_is_met_as_nearly_as_can_be_whatever_the_share(policy: str) -> None:
    planned = plan(of([10.0, 10.0], 3.0), policy)
    assert (hours_of(planned), planned.misses_deadline) == ([(0, 3)], True)


def test_a_slot_of_two_shares_counts_by_their_mean() -> None:
    asked = of([50.0, 80.0, 40.0, 70.0], 2.0)
    assert hours_of(plan(replace(asked, slot_s=2 * H), "optimal")) == [(0, 2)]


def test_each_zone_is_held_to_its_own_share() -> None:
    shares = {"A": [41.0, 41.0, 75.0], "B": [75.0, 41.0, 41.0]}
    asked = problem({"A": [100.0] * 3, "B": [400.0] * 3}, 2 * H, shares=shares, min_renewable_percent=60.0)
    assert [(slot.zone, slot.start) for slot in plan(asked, "optimal").slots] == [("B", at(0)), ("A", at(2 * H))]


def test_unknown_intensity_counts_as_above_the_limit_where_the_worst_known_is() -> None:
    asked = problem({"A": [500.0, None, 500.0, 100.0]}, 2 * H, max_g_per_kwh=300.0)
    planned = plan(asked, "optimal")
    assert hours_of(planned) == [(1, 2), (3, 4)]
    assert planned.reason.endswith("; the deadline asks for hours of unknown intensity")
    harmless = plan(problem({"A": [250.0, None]}, 2 * H, max_g_per_kwh=300.0), "optimal")
    assert (hours_of(harmless), "deadline asks" in harmless.reason) == ([(0, 2)], False)


def test_both_bounds_hold_together() -> None:
    asked = problem(
        {"A": [500.0, 100.0, 100.0, 100.0]},
        H,
        shares={"A": [90.0, 20.0, 90.0, None]},
        max_g_per_kwh=300.0,
        min_renewable_percent=60.0,
    )
    assert hours_of(plan(asked, "optimal")) == [(2, 3)]
    more = plan(replace(asked, work_steps=4 * H), "optimal")
    assert more.reason.endswith(
        "; the deadline asks for more than 300 g/kWh and less than 60 % renewable and hours of unknown renewable share"
    )


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ([41.0, 75.0], "waits until 01:00Z: renewable share 41 % is below 60 %"),
        ([59.97, 75.0], "waits until 01:00Z: renewable share 59.9 % is below 60 %"),
        ([None, 75.0], "waits until 01:00Z: the renewable share is not known now"),
        ([75.0, 75.0], "runs: 300 g/kWh"),
    ],
)
def test_the_reason_names_the_share(shares: list[float | None], says: str) -> None:
    assert plan(of(shares, 0.5), "optimal").reason.startswith(says)


def test_a_wait_is_told_by_the_zones_that_are_within_the_bound() -> None:
    asked = problem(
        {"A": [100.0, 100.0], "B": [400.0, 300.0]},
        H,
        shares={"A": [41.0, 41.0], "B": [75.0, 75.0]},
        min_renewable_percent=60.0,
    )
    assert plan(asked, "optimal").reason == "waits until 01:00Z: 300 g/kWh then, 400 now"


@st.composite
def shared_problems(draw: st.DrawFn) -> Problem:
    """Up to six hours and two zones, shares of which some are unknown, and work up to what fits."""
    slots, zones = draw(st.integers(2, 6)), draw(st.integers(1, 2))
    share = st.none() | st.sampled_from([0.0, 30.0, 59.0, 60.0, 75.0, 120.0])
    names = [f"Z{z}" for z in range(zones)]
    prices = {name: draw(st.lists(st.integers(1, 800).map(float), min_size=slots, max_size=slots)) for name in names}
    shares = {name: draw(st.lists(share, min_size=slots, max_size=slots)) for name in names}
    work_s = round(draw(st.floats(0.05, 0.95)) * slots * H)
    return problem(prices, float(work_s), shares=shares, min_renewable_percent=60.0)


def stands(asked: Problem, zone: str, hour: int) -> int:
    """0 where the hour has the share, 1 where nobody knows, 2 where it has not."""
    share = asked.zones[zone].curve[hour].renewable_percent
    return 1 if share is None else int(share < 60.0) * 2


def used_s(asked: Problem, planned: Plan) -> list[float]:
    """Seconds of the plan with the share, without knowing, and without the share."""
    used = [0.0, 0.0, 0.0]
    for slot in planned.slots:
        for hour, part in enumerate(asked.zones[slot.zone].curve):
            overlap_s = (min(part.end, slot.end) - max(part.start, slot.start)).total_seconds()
            used[stands(asked, slot.zone, hour)] += max(0.0, overlap_s)
    return used


def room_s(asked: Problem, allowed: int, zones: Sequence[str]) -> float:
    """Seconds until the deadline in which any of the zones stands no worse than `allowed`."""
    hours = range(len(asked.zones["Z0"].curve))
    return H * sum(any(stands(asked, zone, hour) <= allowed for zone in zones) for hour in hours)


@settings(max_examples=200)
@given(shared_problems(), st.sampled_from(["slots", "optimal"]))
def test_no_second_is_planned_below_the_bound_that_the_deadline_does_not_ask_for(asked: Problem, policy: str) -> None:
    zones = list(asked.zones)
    planned = plan(asked, policy)
    assert not planned.misses_deadline
    _, unknown_s, below_s = used_s(asked, planned)
    # `slots` takes whole slots and cuts the last one in time, which may be any of them.
    slack_s = EPS_S if policy == "optimal" else H
    needed_s, unsure_s = (max(0.0, asked.work_steps - room_s(asked, allowed, zones)) for allowed in (1, 0))
    assert below_s <= (needed_s + slack_s if needed_s else EPS_S)
    assert unknown_s + below_s <= (unsure_s + slack_s if unsure_s else EPS_S)
    event(f"below {below_s > EPS_S}, unknown {unknown_s > EPS_S}")
    assert ("less than 60 % renewable" in planned.reason) == (below_s > EPS_S)
    assert ("unknown renewable share" in planned.reason) == (unknown_s > EPS_S)


@settings(max_examples=100)
@given(shared_problems())
def test_now_leaves_the_bound_only_where_no_zone_suffices_within_it(asked: Problem) -> None:
    _, unknown_s, below_s = used_s(asked, plan(asked, "now"))
    if any(room_s(asked, 0, [zone]) >= asked.work_steps for zone in asked.zones):
        assert unknown_s + below_s <= EPS_S
    elif any(room_s(asked, 1, [zone]) >= asked.work_steps for zone in asked.zones):
        assert below_s <= EPS_S
