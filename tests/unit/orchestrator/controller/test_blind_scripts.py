"""Scripts under the controller: a blind one is started once and left alone; a missing secret holds a start."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.controller.decide import End, Go, decide
from tests.unit.orchestrator.controller.ground import HOUR, T0, Bench
from tests.unit.orchestrator.controller.test_decide import CASE, RUNNING, at, plan, slot


def blind(bench: Bench, **carbon: object) -> None:
    bench.submit(
        job="script",
        script={"entrypoint": "train.py", "folder": "/work", "asks": False},
        carbon={"policy": "window", "finish_by": "23h", **carbon},
        model=None,
        data=None,
        training=None,
    )


def test_no_plan_ends_a_script_that_cannot_save() -> None:
    case = replace(CASE, running=RUNNING, blind=True, now=at(31), renew_within_s=600)
    for made in (CASE.plan, plan(), plan(slot(0, 60, "FR")), plan(slot(0, 60, "DE", 4)), None):
        decision = decide(replace(case, plan=made))
        assert isinstance(decision, Go) and decision.start is None
        assert (decision.zone, decision.mode, decision.run_until) == ("DE", (2, None), at(41))


def test_its_user_and_its_window_do() -> None:
    case = replace(CASE, running=RUNNING, blind=True)
    assert isinstance(decide(replace(case, wish="hold")), End)
    assert isinstance(decide(replace(case, wish="cancel")), End)
    assert decide(replace(case, open=False)) == End("window", "its window has closed")
    closing = decide(replace(case, closes_at=at(5)))
    assert isinstance(closing, Go) and (closing.run_until, closing.ends_as) == (at(5), "window")


def test_it_is_started_once_in_a_clean_hour_uncalibrated_and_runs_through_dirty_ones(bench: Bench) -> None:
    blind(bench)
    controller = bench.controller()
    for _ in range(8):
        controller.run_pass()
        bench.now += HOUR
    assert (bench.cluster.starts, bench.job().state) == (1, "running")
    desire = bench.cluster.desires["tiny-1"]
    assert desire.run_until > T0 + 6 * 24 * HOUR  # a controller that falls silent does not throw its work away
    assert bench.job().reason == "runs to its end, for it never asks for a checkpoint"


def test_a_window_that_closes_ends_it(bench: Bench) -> None:
    blind(bench, policy="now")
    closes = T0 + timedelta(minutes=20)
    bench.controller().run_pass(closes)
    desire = bench.cluster.desires["tiny-1"]
    assert desire.ends_as == "window" and T0 < desire.run_until < closes


def test_a_secret_that_is_not_there_holds_the_start_until_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDE_TOKEN", raising=False)
    bench.submit(secrets=["TIDE_TOKEN"], carbon={"policy": "now"})
    bench.controller().run_pass()
    assert (bench.cluster.starts, bench.job().state) == (0, "waiting")
    assert bench.job().reason.startswith("waits for the secret TIDE_TOKEN: it is not in the controller's environment")
    monkeypatch.setenv("TIDE_TOKEN", "x")
    bench.controller().run_pass()
    assert bench.cluster.starts == 1
