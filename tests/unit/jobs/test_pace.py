"""Pace: checks about every third of a second, saves when due, stops at once when wanted; the learning rate by step."""

from __future__ import annotations

import pytest

from jobs.pace import CHECK_EVERY_S, Clock, Parts
from jobs.place import Phase
from jobs.schedule import FLOOR, learning_rate


class Hand:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Quiet:
    """A watch that wants to stop when told."""

    wanted = False

    def phase(self, name: Phase) -> None: ...

    def stop_wanted(self) -> bool:
        return self.wanted

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None: ...


def steps_taken(clock: Clock, hand: Hand, count: int, each_s: float) -> None:
    for _ in range(count):
        with clock.step():
            hand.now_s += each_s


@pytest.mark.parametrize(("each_s", "distance"), [(0.01, 30), (0.1, 3), (1.0, 1), (60.0, 1)])
def test_checks_come_about_every_third_of_a_second_and_each_step_where_steps_are_long(
    each_s: float, distance: int
) -> None:
    hand = Hand()
    clock = Clock(Quiet(), 1e9, asks=True, now=hand)
    clock.agreed(0, 1)
    steps_taken(clock, hand, 4, each_s)
    assert clock.decide(4, 1000)[1] == pytest.approx(distance, abs=1)
    assert CHECK_EVERY_S == 0.3


def test_the_last_step_is_always_checked() -> None:
    hand = Hand()
    clock = Clock(Quiet(), 1e9, asks=True, now=hand)
    clock.agreed(0, 1)
    steps_taken(clock, hand, 1, 0.001)
    assert clock.decide(1, 10)[1] == 9


def test_a_save_is_wanted_when_it_is_due_and_not_at_the_last_step() -> None:
    hand = Hand()
    clock = Clock(Quiet(), 5.0, asks=True, now=hand)
    hand.now_s += 4.9
    assert clock.decide(1, 10)[0] == "go"
    hand.now_s += 0.2
    assert clock.decide(2, 10)[0] == "checkpoint"
    assert clock.decide(10, 10)[0] == "go"
    clock.saved()
    assert clock.decide(3, 10)[0] == "go"


def test_a_stop_goes_before_a_save_and_is_asked_on_rank_0_only() -> None:
    hand, watch = Hand(), Quiet()
    first, other = Clock(watch, 1.0, asks=True, now=hand), Clock(watch, 1.0, asks=False, now=hand)
    hand.now_s += 2
    watch.wanted = True
    assert first.decide(1, 10)[0] == "stop"
    assert other.decide(1, 10)[0] == "checkpoint"


def test_the_step_end_is_measured_from_when_the_stop_was_first_seen() -> None:
    hand, watch = Hand(), Quiet()
    clock = Clock(watch, 1e9, asks=True, now=hand)
    assert clock.step_end_s() == 0
    watch.wanted = True
    steps_taken(clock, hand, 3, 0.5)
    assert clock.step_end_s() == pytest.approx(1.0)
    assert (clock.trained_steps, clock.trained_s, clock.first_step_s) == (3, 1.5, 0.5)


def test_parts_add_up_over_their_blocks() -> None:
    parts = Parts()
    parts.add("checkpoint", 1.5)
    parts.add("checkpoint", 2.0)
    with parts.time("build"):
        pass
    assert parts.seconds["checkpoint"] == 3.5
    assert parts.seconds["build"] >= 0


def test_the_rate_warms_up_to_the_peak_and_falls_to_its_floor_at_the_last_step() -> None:
    rates = [learning_rate(step, 100, 1.0, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(FLOOR)


def test_the_rate_is_defined_for_a_single_step_and_a_warmup_longer_than_the_training() -> None:
    assert learning_rate(0, 1, 1.0, 0) == 1.0
    assert learning_rate(4, 5, 1.0, 50) == pytest.approx(0.1)
