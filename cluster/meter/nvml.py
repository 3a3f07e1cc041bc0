"""GPUs as NVML shows them: joules by UUID, from energy counters or from power readings integrated.
In: the driver's libnvidia-ml. Out: Gpus, whose energy between two readings is a number or None (unmetered).
The meter attributes that energy to ranks. This module alone imports pynvml, and alone knows millijoules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pynvml

from cluster.api import Source
from cluster.meter.clock import Instant

log = logging.getLogger(__name__)

Value = TypeVar("Value")

MAX_SAMPLE_GAP_S = 5.0
"""Power between two samples further apart than this is unknown: a trapezoid over it would be a guess."""


class Unreadable(Exception):
    """NVML did not answer a reading; the text is NVML's own."""


class Gpu(Protocol):
    """One GPU. `read` takes a reading; `take` gives what was drawn between the readings of the last two takes."""

    uuid: str
    source: Source
    integrates: bool
    """True where power must be sampled often, for want of a counter."""

    def read(self, at: Instant) -> None:
        """Read the device now."""

    def take(self) -> float | None:
        """Energy in J since the last take; None where any part of that time could not be read."""

    def baseline_j(self) -> float | None:
        """The counter at the last take in J, from which a later process may go on; None where there is none."""

    def resume(self, baseline_j: float | None) -> None:
        """Measure the next take from a baseline that an earlier process kept; None makes that take unmetered."""


class CounterGpu:
    """A GPU with an energy counter (Volta and later)."""

    source: Source = "nvml-counter"
    integrates = False

    def __init__(self, uuid: str, counter_j: Callable[[], float]) -> None:
        self.uuid = uuid
        self._counter_j = counter_j
        self._fresh_j: float | None = None
        self._last_j: float | None = None

    def read(self, at: Instant) -> None:
        """Read the counter; a failure makes the time around it unmetered."""
        try:
            self._fresh_j = self._counter_j()
        except Unreadable as fault:
            if self._fresh_j is not None:
                log.warning("GPU %s cannot be read (%s); its time is unmetered until it can", self.uuid, fault)
            self._fresh_j = None

    def take(self) -> float | None:
        """Energy in J since the last take; a counter that fell (driver reload) is a new baseline, hence None."""
        last_j, self._last_j = self._last_j, self._fresh_j
        if last_j is None or self._last_j is None or self._last_j < last_j:
            return None
        return self._last_j - last_j

    def baseline_j(self) -> float | None:
        """The counter at the last take, in J."""
        return self._last_j

    def resume(self, baseline_j: float | None) -> None:
        """Measure the next take from `baseline_j`."""
        self._last_j = baseline_j


class PowerGpu:
    """A GPU whose power is integrated by the trapezoid over monotonic time; no counter."""

    source: Source = "nvml-power"
    integrates = True

    def __init__(self, uuid: str, power_w: Callable[[], float]) -> None:
        self.uuid = uuid
        self._power_w = power_w
        self._last: tuple[float, float] | None = None
        self._energy_j = 0.0
        self._whole = False

    def read(self, at: Instant) -> None:
        """Add one power sample; a failure, or too long a gap since the last, makes the time around it unmetered."""
        try:
            power_w = self._power_w()
        except Unreadable as fault:
            if self._last is not None:
                log.warning("GPU %s cannot be read (%s); its time is unmetered until it can", self.uuid, fault)
            self._last = None
            self._whole = False
            return
        if self._last is None or at.monotonic_s - self._last[0] > MAX_SAMPLE_GAP_S:
            self._whole = False
        else:
            elapsed_s = at.monotonic_s - self._last[0]
            self._energy_j += (self._last[1] + power_w) / 2 * elapsed_s
        self._last = (at.monotonic_s, power_w)

    def take(self) -> float | None:
        """Energy in J since the last take."""
        energy_j = self._energy_j if self._whole else None
        self._energy_j = 0.0
        self._whole = self._last is not None
        return energy_j

    def baseline_j(self) -> float | None:
        """None: power that nobody sampled is unknown."""
        return None

    def resume(self, baseline_j: float | None) -> None:
        """The next take is unmetered: nobody sampled since the earlier process ended."""
        self._whole = False


def devices() -> list[Gpu]:
    """The host's GPUs in NVML's order (PCI, whatever CUDA_VISIBLE_DEVICES says); none where there is no NVML."""
    try:
        _call(pynvml.nvmlInit)
        count = _call(pynvml.nvmlDeviceGetCount)
    except Unreadable as fault:
        log.info("no NVML here (%s): no GPU is metered", fault)
        return []
    gpus = []
    for index in range(count):
        try:
            uuid = _uuid(index)
        except Unreadable as fault:
            log.warning("GPU %d is not metered: %s", index, fault)
            continue
        gpus.append(_gpu(uuid))
    return gpus


def uuids_of(gpu_ids: Sequence[int | str]) -> tuple[str, ...]:
    """UUIDs of GPUs as Ray or CUDA_VISIBLE_DEVICES names them: NVML indices, or UUIDs, which stay as they are.

    A GPU that NVML does not know keeps its id, so that its owner's rows are unmetered instead of missing.
    """
    ids = [str(gpu_id) for gpu_id in gpu_ids]
    try:
        if any(gpu_id.isdecimal() for gpu_id in ids):
            _call(pynvml.nvmlInit)
        return tuple(_uuid(int(gpu_id)) if gpu_id.isdecimal() else gpu_id for gpu_id in ids)
    except Unreadable as fault:
        log.warning("NVML does not know GPUs %s (%s); they are unmetered", ",".join(ids), fault)
        return tuple(ids)


def _gpu(uuid: str) -> Gpu:
    """The GPU by the best that it offers: its counter, else its power; an unreadable counter where it has neither."""
    handle = _Handle(uuid)
    try:
        handle.counter_j()
    except Unreadable:
        try:
            handle.power_w()
        except Unreadable:
            return CounterGpu(uuid, handle.counter_j)
        return PowerGpu(uuid, handle.power_w)
    return CounterGpu(uuid, handle.counter_j)


class _Handle:
    """NVML's handle of one GPU, looked up again by UUID after a failure: a GPU that was reset gets a new one."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._handle: Any = None

    def counter_j(self) -> float:
        """Energy counter in J; NVML's is in mJ since the driver loaded."""
        return self._ask(pynvml.nvmlDeviceGetTotalEnergyConsumption) / 1000.0

    def power_w(self) -> float:
        """Power in W; NVML's is in mW."""
        return self._ask(pynvml.nvmlDeviceGetPowerUsage) / 1000.0

    def _ask(self, function: Callable[[Any], int]) -> int:
        try:
            if self._handle is None:
                self._handle = _call(pynvml.nvmlDeviceGetHandleByUUID, self._uuid)
            return _call(function, self._handle)
        except Unreadable:
            self._handle = None
            raise


def _uuid(index: int) -> str:
    return str(_call(pynvml.nvmlDeviceGetUUID, _call(pynvml.nvmlDeviceGetHandleByIndex, index)))


def _call(function: Callable[..., Value], *arguments: object) -> Value:
    """NVML's answer; its two unrelated kinds of error become Unreadable, here and nowhere else."""
    try:
        return function(*arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as fault:
        raise Unreadable(str(fault)) from None
