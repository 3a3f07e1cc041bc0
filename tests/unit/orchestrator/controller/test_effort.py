"""The time of a pass: one bound for all that can wait, and a least share, so that everyone's turn comes.
In: a monotonic clock that is turned by hand. Out: pass or fail.
"""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from orchestrator.controller import effort
from orchestrator.controller.effort import LEAST_S, PASS_S, PLANNING_S, Effort, undisturbed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`now_s` is what the monotonic clock says."""
    turned = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(effort, "time", SimpleNamespace(monotonic=lambda: turned.now_s))
    return turned


def plan(spent: Effort, clock: SimpleNamespace, takes_s: float) -> None:
    with spent.planning():
        clock.now_s += takes_s


def test_only_planning_counts_as_planning(clock: SimpleNamespace) -> None:
    spent = Effort(clock.now_s)
    clock.now_s += PASS_S / 2
    plan(spent, clock, PLANNING_S / 2)
    assert not spent.spent
    plan(spent, clock, PLANNING_S / 2 + 0.01)
    assert spent.spent and not spent.over
    spent.put_off.add("tiny")
    assert spent.over, "those that come next would only be put off"


def test_what_the_pass_has_done_before_is_taken_from_its_time(clock: SimpleNamespace) -> None:
    began_s = clock.now_s
    clock.now_s += PASS_S - 2 * LEAST_S
    spent = Effort(began_s)
    plan(spent, clock, 2 * LEAST_S)
    assert spent.spent and spent.over


def test_a_late_pass_plans_one_job_and_looks_for_a_moment(clock: SimpleNamespace) -> None:
    began_s = clock.now_s
    clock.now_s += 60 * PASS_S
    spent = Effort(began_s)
    assert not spent.spent and not spent.over
    clock.now_s += LEAST_S
    assert spent.over and not spent.spent, "one is planned, be it ever so late"
    plan(spent, clock, 0.0)
    assert spent.spent


def test_a_pass_leaves_the_search_for_garbage_as_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), undisturbed():
        assert not gc.isenabled()
        with undisturbed():
            pass
        assert not gc.isenabled()
        raise ValueError("within")
    assert gc.isenabled()
