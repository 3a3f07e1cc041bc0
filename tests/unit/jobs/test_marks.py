"""Where a step's time goes: parts sum to the step, waits are taken out of what waits, and no device is waited for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.marks import COLLECTIVES, EVERY, STEP_PARTS, CpuTimer, CudaTimer, Marks, marks_on, scaled_s


class Device:
    """A clock that the test turns, of a device that lags behind; `aside` is while another stream is current."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.done_s = float("inf")
        self.aside = False
        self.taken = 0
        self.freed: list[float] = []

    def now(self) -> float | None:
        self.taken += 1
        return None if self.aside else self.at_s

    def passed(self, moment: float) -> bool:
        return moment <= self.done_s

    def between_s(self, start: float, end: float) -> float:
        assert end <= self.done_s, "read before the device has come to it"
        return end - start

    def free(self, moments: list[float]) -> None:
        self.freed += moments


class Backend:
    """A communication backend whose calls take time on the device's clock."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def all_reduce(self, takes_s: float, async_op: bool = False) -> Any:
        if async_op:
            return Work(self.device, takes_s)
        self.device.at_s += takes_s
        return None

    def all_reduce_coalesced(self, takes_s: float) -> None:
        self.all_reduce(takes_s)
        self.all_reduce(takes_s)


class Work:
    """What an asynchronous call returns."""

    def __init__(self, device: Device, takes_s: float) -> None:
        self.device, self.takes_s = device, takes_s

    def wait(self) -> bool:
        self.device.at_s += self.takes_s
        return True

    def is_completed(self) -> bool:
        return False


def step(marks: Marks[float], device: Device, parts_s: dict[str, float]) -> None:
    marks.begin()
    for part in ("data", "forward", "backward", "optimizer"):
        marks.enter(part)  # type: ignore[arg-type]
        device.at_s += parts_s.get(part, 0.0)
    marks.enter("data")
    marks.end()


def test_one_step_in_so_many_is_sampled_and_never_the_first() -> None:
    device = Device()
    marks = Marks(device)
    seen = []
    for number in range(1, 2 * EVERY + 3):
        before = device.taken
        step(marks, device, {"forward": 1.0})
        if device.taken > before:
            seen.append(number)
    assert seen == [2, 2 + EVERY, 2 + 2 * EVERY]
    assert marks.seconds()["forward"] == pytest.approx(3.0)


def test_waits_for_communication_are_taken_out_of_what_waits() -> None:
    device = Device()
    marks, backend = Marks(device, every=1), Backend(device)
    marks.watch(backend)
    step(marks, device, {})  # the first is never sampled
    marks.begin()
    device.at_s += 1
    marks.enter("forward")
    work = backend.all_reduce(5.0, async_op=True)
    device.at_s += 2
    assert work.wait() is True
    assert work.is_completed() is False
    marks.enter("backward")
    device.at_s += 4
    backend.all_reduce_coalesced(3.0)
    marks.enter("optimizer")
    device.at_s += 7
    marks.end()
    assert marks.seconds() == {"data": 1, "forward": 2, "backward": 4, "optimizer": 7, "communication": 11}


def test_what_another_stream_does_is_not_counted() -> None:
    device = Device()
    marks, backend = Marks(device, every=1), Backend(device)
    marks.watch(backend)
    step(marks, device, {})
    marks.begin()
    marks.enter("backward")
    device.aside = True
    backend.all_reduce(3.0)
    device.aside = False
    marks.end()
    assert marks.seconds()["communication"] == 0
    assert marks.seconds()["backward"] == 3


def test_samples_are_read_only_once_the_device_has_passed_them() -> None:
    device = Device()
    marks = Marks(device, every=1)
    device.done_s = 0.0
    for _ in range(4):
        step(marks, device, {"forward": 1.0})
    assert marks.seconds()["forward"] == 0
    device.done_s = 3.0
    assert marks.seconds()["forward"] == 2, "the first step is none of them, and the last has not passed"
    assert marks.seconds()["forward"] == 2, "and none is read twice"
    assert len(device.freed) == 2 * len(("data", "data", "forward", "backward", "optimizer", "data", "end"))


def test_a_backend_is_left_as_it_was() -> None:
    backend = Backend(Device())
    marks = Marks(backend.device, every=1)
    plain = backend.all_reduce
    marks.watch(backend)
    assert backend.all_reduce != plain
    marks.close()
    assert backend.all_reduce == plain and "all_reduce" not in vars(backend)


def test_deepspeed_has_the_collectives_that_are_timed() -> None:
    from deepspeed.comm.torch import TorchBackend

    known = {name for name in COLLECTIVES if hasattr(TorchBackend, name)}
    assert known == set(COLLECTIVES)


def test_a_call_that_fails_is_timed_like_any_other() -> None:
    device = Device()
    marks = Marks(device, every=1)

    class Broken:
        def barrier(self) -> None:
            device.at_s += 1
            raise RuntimeError("connection reset")

    backend = Broken()
    marks.watch(backend)
    step(marks, device, {})
    marks.begin()
    with pytest.raises(RuntimeError, match="connection reset"):
        backend.barrier()
    marks.end()
    assert marks.seconds()["communication"] == 1


def test_marks_on_a_cpu_read_its_clock() -> None:
    import torch

    marks = marks_on(torch.device("cpu"))
    assert isinstance(marks._timer, CpuTimer)
    for _ in range(2):
        marks.begin()
        marks.enter("forward")
        marks.end()
    found = marks.seconds()
    assert all(found[part] >= 0 for part in STEP_PARTS) and sum(found.values()) > 0


class Event:
    """As torch.cuda.Event: recorded on a stream, reads the stream's clock once it has passed."""

    made = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        Event.made += 1
        self.at_ms = -1.0

    def record(self, stream: Stream) -> None:
        self.at_ms = stream.at_ms

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        return other.at_ms - self.at_ms


class Stream:
    """A stream with a clock of its own."""

    def __init__(self) -> None:
        self.at_ms = 0.0


def test_marks_on_a_gpu_are_events_of_its_compute_stream_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    compute, aside = Stream(), Stream()
    current = [compute]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[0])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    timer = CudaTimer(torch.device("cuda:0"))
    marks = Marks(timer, every=1)
    for _ in range(20):
        marks.begin()
        marks.enter("forward")
        compute.at_ms += 250
        current[0] = aside
        assert timer.now() is None
        current[0] = compute
        marks.end()
        marks.seconds()
    assert marks.seconds()["forward"] == pytest.approx(19 * 0.25)
    assert Event.made == 3


@given(
    st.lists(
        st.dictionaries(st.sampled_from(STEP_PARTS), st.floats(0, 1e3), min_size=len(STEP_PARTS)),
        min_size=1,
        max_size=4,
    ),
    st.floats(0, 1e7),
)
def test_shares_sum_to_the_seconds_trained(ranks: list[dict[Any, float]], trained_s: float) -> None:
    sums = {part: sum(rank[part] for rank in ranks) for part in STEP_PARTS}
    found = scaled_s(sums, trained_s)
    if sum(sums.values()) == 0:
        assert found == {}
    else:
        assert sum(found.values()) == pytest.approx(trained_s)
        assert all(part_s >= 0 for part_s in found.values())


def test_a_clock_that_goes_back_a_tick_makes_no_part_negative() -> None:
    sampled = {"data": -1e-9, "forward": 1.0, "backward": 2.0, "optimizer": 1.0, "communication": 0.0}
    assert scaled_s(sampled, 8.0) == {"data": 0, "forward": 2, "backward": 4, "optimizer": 2, "communication": 0}  # type: ignore[arg-type]
