"""The one door to NVML: the host's GPUs and MIG slices by UUID, whatever a driver does meanwhile.
In: the driver's libnvidia-ml. Out: Gpus and Slices; its two kinds of errors as Unreadable or Unsupported.
The meter attributes their energy to ranks. This module alone imports pynvml, and alone knows millijoules.
"""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pynvml

from cluster.meter.gpu import CounterGpu, Gpu, PowerGpu, Slice, Unreadable, Unsupported
from cluster.meter.sensor import sensor_of

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_NEVER = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_NO_PERMISSION)


def devices() -> list[Gpu]:
    """The host's GPUs in NVML's order (PCI, whatever CUDA_VISIBLE_DEVICES says); none where there is no NVML."""
    try:
        count = _count()
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


def find(uuid: str) -> Gpu | Slice | None:
    """The GPU or the MIG slice of this UUID; None where NVML has none.

    A slice's share is by its compute slices of those that the whole GPU has.
    """
    try:
        if not uuid.startswith("MIG-"):
            _call(pynvml.nvmlDeviceGetHandleByUUID, uuid)
            return _gpu(uuid)
        handle = _call(pynvml.nvmlDeviceGetHandleByUUID, uuid)
        parent = _call(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle)
        slices = _call(pynvml.nvmlDeviceGetAttributes_v2, handle).computeInstanceSliceCount
        share = slices / _call(pynvml.nvmlDeviceGetMaxMigDeviceCount, parent)
        return Slice(uuid, _gpu(str(_call(pynvml.nvmlDeviceGetUUID, parent))), min(1.0, share))
    except (Unreadable, ZeroDivisionError) as fault:
        log.debug("NVML does not know %s: %s", uuid, fault)
        return None


def described() -> list[str]:
    """One line for each kind of GPU here: how it is read, and what is known of its sensor."""
    kinds: dict[str, int] = {}
    for gpu in devices():
        handle = _call(pynvml.nvmlDeviceGetHandleByUUID, gpu.uuid)
        name = str(_call(pynvml.nvmlDeviceGetName, handle))
        try:
            architecture: int | None = _call(pynvml.nvmlDeviceGetArchitecture, handle)
        except Unreadable:
            architecture = None
        reads = "its energy counter" if gpu.sample_s is None else f"power every {gpu.sample_s:g} s"
        line = f"{name}, by {reads}; {sensor_of(architecture, name).words}"
        kinds[line] = kinds.get(line, 0) + 1
    return [f"{count} x {line}" for line, count in kinds.items()]


def limits_described() -> list[str]:
    """One line for each kind of GPU here: between which power limits it can be set, and what it has now."""
    kinds: dict[str, int] = {}
    dial = PowerDial()
    for gpu in devices():
        name = str(_call(pynvml.nvmlDeviceGetName, _by_uuid(gpu.uuid)))
        try:
            low_w, high_w = dial.range_w(gpu.uuid)
            now_w, default_w = dial.limit_w(gpu.uuid), dial.default_w(gpu.uuid)
            line = f"{name}, {low_w:g} to {high_w:g} W, {now_w:g} W now"
            line += "" if now_w == default_w else f" ({default_w:g} W by itself)"
        except Unsupported as fault:
            line = f"{name}, none ({fault})"
        kinds[line] = kinds.get(line, 0) + 1
    return [f"{count} x {line}" for line, count in kinds.items()]


def uuids_of(gpu_ids: Sequence[int | str]) -> tuple[str, ...]:
    """UUIDs of GPUs as Ray or CUDA_VISIBLE_DEVICES names them: NVML indices, UUIDs, or beginnings of UUIDs.

    A GPU that NVML does not know keeps its id, so that its owner's rows are unmetered instead of missing.
    """
    ids = [str(gpu_id) for gpu_id in gpu_ids]
    try:
        if any(not gpu_id.startswith("MIG-") for gpu_id in ids):
            known = [_uuid(index) for index in range(_count())]
            _warn_of_order(ids)
            return tuple(_full(gpu_id, known) for gpu_id in ids)
    except Unreadable as fault:
        log.warning("NVML does not know GPUs %s (%s); they are unmetered", ",".join(ids), fault)
    return tuple(ids)


def _full(gpu_id: str, known: Sequence[str]) -> str:
    """The whole UUID of an index or a beginning; CUDA takes a beginning that fits one GPU alone."""
    if gpu_id.isdecimal():
        if int(gpu_id) < len(known):
            return known[int(gpu_id)]
        log.warning("NVML knows no GPU %s; it is unmetered", gpu_id)
        return gpu_id
    fitting = [uuid for uuid in known if uuid.startswith(gpu_id)]
    return fitting[0] if len(fitting) == 1 else gpu_id


def _warn_of_order(ids: Sequence[str]) -> None:
    """CUDA counts the fastest GPU first unless told to count as NVML does: where GPUs differ, numbers mislead."""
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or not any(gpu_id.isdecimal() for gpu_id in ids):
        return
    names = {_call(pynvml.nvmlDeviceGetName, _by_index(index)) for index in range(_count())}
    if len(names) > 1:
        log.warning("GPUs of this host differ: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or energy goes to the wrong ranks")


def _gpu(uuid: str) -> Gpu:
    """The GPU by the best that it offers: its counter, else its power. One that is lost now may have a counter."""
    handle = _Handle(uuid)
    try:
        handle.counter_j()
    except Unsupported:
        try:
            handle.power_w()
        except Unreadable:
            return CounterGpu(uuid, handle.counter_j)
        return PowerGpu(uuid, handle.power_w, handle.period_s())
    except Unreadable:
        pass  # the first reading says so
    return CounterGpu(uuid, handle.counter_j)


class PowerDial:
    """The power limits of the host's GPUs, as cluster.meter.limit asks for them; NVML's are in mW."""

    def limit_w(self, uuid: str) -> float:
        """The limit that is set now, in W."""
        return float(_call(pynvml.nvmlDeviceGetPowerManagementLimit, _by_uuid(uuid))) / 1000.0

    def range_w(self, uuid: str) -> tuple[float, float]:
        """The least and the most that can be set, in W."""
        low_mw, high_mw = _call(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, _by_uuid(uuid))
        return low_mw / 1000.0, high_mw / 1000.0

    def default_w(self, uuid: str) -> float:
        """The limit after a start of the driver, in W."""
        return float(_call(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, _by_uuid(uuid))) / 1000.0

    def set_limit_w(self, uuid: str, limit_w: float) -> None:
        """Set it; Unsupported for all but root."""
        _call(pynvml.nvmlDeviceSetPowerManagementLimit, _by_uuid(uuid), round(limit_w * 1000))


class _Handle:
    """NVML's handle of one GPU, looked up again by UUID after a failure: a GPU that was reset gets a new one."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._handle: Any = None

    def counter_j(self) -> float:
        """Energy counter in J; NVML's is in mJ since the driver loaded."""
        return float(self._ask(pynvml.nvmlDeviceGetTotalEnergyConsumption)) / 1000.0

    def power_w(self) -> float:
        """Power in W; NVML's is in mW."""
        return float(self._ask(pynvml.nvmlDeviceGetPowerUsage)) / 1000.0

    def period_s(self) -> float | None:
        """How often the power sensor is read by the driver itself, from the times of what it kept; None untold."""
        try:
            _, kept = self._ask(lambda handle: pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0))
        except Unreadable:
            return None
        times_us = sorted({sample.timeStamp for sample in kept if sample.timeStamp})
        gaps_us = [after - before for before, after in zip(times_us, times_us[1:], strict=False)]
        return statistics.median(gaps_us) / 1e6 if gaps_us else None

    def _ask(self, function: Callable[[Any], Value]) -> Value:
        try:
            if self._handle is None:
                self._handle = _call(pynvml.nvmlDeviceGetHandleByUUID, self._uuid)
            return _call(function, self._handle)
        except Unreadable:
            self._handle = None
            raise


def _count() -> int:
    return int(_call(pynvml.nvmlDeviceGetCount))


def _by_index(index: int) -> Any:
    return _call(pynvml.nvmlDeviceGetHandleByIndex, index)


def _by_uuid(uuid: str) -> Any:
    return _call(pynvml.nvmlDeviceGetHandleByUUID, uuid)


def _uuid(index: int) -> str:
    return str(_call(pynvml.nvmlDeviceGetUUID, _by_index(index)))


def _call(function: Callable[..., Value], *arguments: object) -> Value:
    """NVML's answer, after a start of NVML where it needs one; its errors become ours, here and nowhere else."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as fault:
        if fault.value != pynvml.NVML_ERROR_UNINITIALIZED:
            raise _ours(fault) from None
    except pynvml.NVMLLibraryMismatchError as fault:
        raise Unsupported(str(fault)) from None
    try:
        pynvml.nvmlInit()
        return function(*arguments)
    except pynvml.NVMLError as fault:
        raise _ours(fault) from None
    except pynvml.NVMLLibraryMismatchError as fault:
        raise Unsupported(str(fault)) from None


def _ours(fault: Any) -> Unreadable:
    return Unsupported(str(fault)) if fault.value in _NEVER else Unreadable(str(fault))
