"""Where the time of a step goes: data, forward, backward, optimizer, and the communication that they wait for.
In: the loop's marks, and DeepSpeed's calls to its communication. Out: seconds by part, of the steps that were sampled.
jobs.engine sets the marks; jobs.train scales them to the seconds trained, and the report shares out joules by them.

One step in `EVERY` is sampled, never the first, which warms up. A mark waits for nothing: on a CPU it reads the clock;
on a GPU it records an event on the current stream, and the events are read some steps later, once they have passed.

Communication is the time that a rank waits in it, for a slower rank too: the calls of `deepspeed.comm`, and the waits
for those that were started before. On a GPU that is what holds up the stream that computes. What DeepSpeed overlaps on
a stream of its own is not counted; where the compute stream waits for all of that stream at once, the wait counts to
the part that waits. A backward pass that computes activations again is backward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from math import fsum
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch

StepPart = Literal["data", "forward", "backward", "optimizer", "communication"]
STEP_PARTS: tuple[StepPart, ...] = ("data", "forward", "backward", "optimizer", "communication")
EVERY = 16
"""One step in so many is sampled: it keeps the cost of the marks far below that of a step."""
COLLECTIVES = (
    "all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter", "reduce_scatter_tensor", "broadcast",
    "all_gather", "all_gather_into_tensor", "all_gather_coalesced", "all_to_all", "all_to_all_single", "gather",
    "barrier",
)  # fmt: skip
"""Methods of DeepSpeed's communication backend that a rank may wait in."""

Moment = TypeVar("Moment")


class Timer(Protocol[Moment]):
    """How moments are taken and told apart, without waiting for the device."""

    def now(self) -> Moment | None:
        """The moment that it is; None where what runs now is not on the stream that computes."""

    def passed(self, moment: Moment) -> bool:
        """Whether the device has come to it."""

    def between_s(self, start: Moment, end: Moment) -> float:
        """Seconds between two moments that have passed."""

    def free(self, moments: list[Moment]) -> None:
        """These are read, and may be used again."""


class CpuTimer:
    """Moments of the CPU's own clock."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.perf_counter()

    def passed(self, moment: float) -> bool:
        """The CPU is always where it is."""
        return True

    def between_s(self, start: float, end: float) -> float:
        """Their difference."""
        return end - start

    def free(self, moments: list[float]) -> None:
        """Numbers need no care."""


class CudaTimer:
    """Moments are events on the stream that computed when the timer was made; other streams take none."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.current_stream(device)
        self._spare: list[Any] = []

    def now(self) -> Any | None:
        """An event, recorded where the stream now stands."""
        if torch.cuda.current_stream(self._device) != self._stream:
            return None
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def passed(self, moment: Any) -> bool:
        """Whether the stream is past the event; asks, and does not wait."""
        return bool(moment.query())

    def between_s(self, start: Any, end: Any) -> float:
        """Seconds of the device's clock."""
        return float(start.elapsed_time(end)) / 1000

    def free(self, moments: list[Any]) -> None:
        """Events are recorded again."""
        self._spare += moments


@dataclass
class _Sample(Generic[Moment]):
    """One step: where each part begins, in order, and the waits for communication by the part that they are in."""

    marks: list[tuple[StepPart, Moment]] = field(default_factory=list)
    waits: list[tuple[StepPart, Moment, Moment]] = field(default_factory=list)
    end: Moment | None = None

    def moments(self) -> list[Moment]:
        found = [moment for _, moment in self.marks] + [each for _, *pair in self.waits for each in pair]
        return found if self.end is None else [*found, self.end]


class Marks(Generic[Moment]):
    """The marks of one rank. Outside a sampled step each of them is one comparison."""

    def __init__(self, timer: Timer[Moment], every: int = EVERY) -> None:
        self._timer, self._every = timer, every
        self._steps = 0
        self._sample: _Sample[Moment] | None = None
        self._part: StepPart = "data"
        self._inside = False
        self._watched: list[tuple[Any, str]] = []
        self._pending: list[_Sample[Moment]] = []
        self._seconds: dict[StepPart, float] = dict.fromkeys(STEP_PARTS, 0.0)

    def begin(self) -> None:
        """A step begins, with its data."""
        self._steps += 1
        if self._steps > 1 and (self._steps - 2) % self._every == 0:
            self._read()
            self._sample = _Sample()
            self.enter("data")

    def enter(self, part: StepPart) -> None:
        """From here on it is this part of the step."""
        if self._sample is not None:
            self._part = part
            if (now := self._timer.now()) is not None:
                self._sample.marks.append((part, now))

    def end(self) -> None:
        """The step ends."""
        if self._sample is not None:
            self._sample.end = self._timer.now()
            if self._sample.end is not None:
                self._pending.append(self._sample)
            self._sample = None

    def seconds(self) -> dict[StepPart, float]:
        """Seconds by part of all sampled steps that the device has done."""
        self._read()
        return dict(self._seconds)

    def watch(self, backend: Any) -> None:
        """Time what DeepSpeed's communication backend (`deepspeed.comm.comm.cdb`) does in sampled steps."""
        for name in COLLECTIVES:
            if (call := getattr(backend, name, None)) is not None:
                setattr(backend, name, self._timed(call))
                self._watched.append((backend, name))

    def close(self) -> None:
        """Leave the backend as it was."""
        for backend, name in self._watched:
            vars(backend).pop(name, None)
        self._watched.clear()

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*arguments: Any, **named: Any) -> Any:
            # A call inside a call, as of a coalesced one's parts, belongs to the outer one.
            if self._sample is None or self._inside:
                return call(*arguments, **named)
            result = self._waited(call, *arguments, **named)
            return _Handle(result, self._waited) if hasattr(result, "wait") else result

        return timed

    def _waited(self, act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Do it and keep how long it took, where a sampled step is under way (a handle may be waited for later)."""
        sample, part = self._sample, self._part
        if sample is None or self._inside:
            return act(*arguments, **named)
        self._inside = True
        start = self._timer.now()
        try:
            return act(*arguments, **named)
        finally:
            self._inside = False
            end = self._timer.now()
            if start is not None and end is not None:
                sample.waits.append((part, start, end))

    def _read(self) -> None:
        """Take in the samples that the device is past, oldest first."""
        while self._pending and self._pending[0].end is not None and self._timer.passed(self._pending[0].end):
            sample = self._pending.pop(0)
            for part, duration_s in self._spent(sample):
                self._seconds[part] += duration_s
            self._timer.free(sample.moments())

    def _spent(self, sample: _Sample[Moment]) -> list[tuple[StepPart, float]]:
        assert sample.end is not None
        ends = [moment for _, moment in sample.marks[1:]] + [sample.end]
        spent = [
            (part, self._timer.between_s(start, end)) for (part, start), end in zip(sample.marks, ends, strict=True)
        ]
        for part, start, end in sample.waits:
            wait_s = self._timer.between_s(start, end)
            spent += [(part, -wait_s), ("communication", wait_s)]
        return spent


class _Handle:
    """What an asynchronous call returned, with its wait timed."""

    def __init__(self, work: Any, waited: Callable[..., Any]) -> None:
        self._work, self._waited = work, waited

    def wait(self, *arguments: Any, **named: Any) -> Any:
        """Wait for it."""
        return self._waited(self._work.wait, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def marks_on(device: torch.device) -> Marks[Any]:
    """Marks for steps on this device."""
    return Marks(CudaTimer(device)) if device.type == "cuda" else Marks(CpuTimer())


def scaled_s(sampled: Mapping[StepPart, float], trained_s: float) -> dict[StepPart, float]:
    """What was sampled (of all ranks together) as parts of `trained_s`, which they sum to; empty where nothing was.

    A part is never less than nothing, though two readings of a device's clock may disagree by a tick.
    """
    known = {part: max(0.0, sampled[part]) for part in STEP_PARTS}
    whole_s = fsum(known.values())
    return {part: trained_s * (part_s / whole_s) for part, part_s in known.items()} if whole_s > 0 else {}
