"""The NVML meter against a library with NVML's ABI, through the real pynvml.
In: power curves whose integral is exact. Out: the error of counters, of integrated power, and of failures.
Each case runs in a process of its own: the library is found when a process starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from cluster.meter.gpu import SAMPLE_S
from tests.nvml.curves import energy_j
from tests.unit.cluster.meter.standin import environment, python

WATCH = """
import json, sys, time
from cluster.meter.clock import SystemClock, Timeline
from cluster.meter import nvml
duration_s, period_s = float(sys.argv[1]), float(sys.argv[2])
line, gpus = Timeline(SystemClock()), nvml.devices()
def read():
    for _ in range(50):  # a reading during which the thread lost its core says nothing about the meter
        at = line.now()
        for gpu in gpus: gpu.read(at)
        if line.now().monotonic_s - at.monotonic_s < 0.002: break
    return at
start = read()
for gpu in gpus: gpu.take()
while (end := read()).monotonic_s < start.monotonic_s + duration_s: time.sleep(period_s)
print(json.dumps({"start_s": start.utc_us / 1e6, "end_s": end.utc_us / 1e6,
    "gpus": [[gpu.uuid, gpu.source, gpu.take()] for gpu in gpus]}))
"""


SHAPES = ("square", "sawtooth", "bursty")


def test_counters_are_within_half_a_percent(standin: Path) -> None:
    env = environment(standin, devices="3", shapes=",".join(SHAPES))
    seen = json.loads(python(WATCH, env, "2", "0.5"))
    for shape, (_, source, measured_j) in zip(SHAPES, seen["gpus"], strict=True):
        assert source == "nvml-counter"
        assert measured_j == pytest.approx(energy_j(shape, seen["start_s"], seen["end_s"]), rel=0.005)


def test_counters_that_move_in_steps_are_off_by_a_step_at_most(standin: Path) -> None:
    env = environment(standin, devices="3", shapes=",".join(SHAPES), step_ms="100")
    seen = json.loads(python(WATCH, env, "2", "0.5"))
    for shape, (_, _, measured_j) in zip(SHAPES, seen["gpus"], strict=True):
        assert measured_j == pytest.approx(energy_j(shape, seen["start_s"], seen["end_s"]), abs=0.1 * 500 + 3)


def test_power_without_a_counter_is_integrated_within_two_percent(standin: Path) -> None:
    env = environment(standin, devices="2", shapes="sawtooth,constant", no_counter="1")
    seen = json.loads(python(WATCH, env, "4", str(SAMPLE_S)))
    for shape, (_, source, measured_j) in zip(("sawtooth", "constant"), seen["gpus"], strict=True):
        assert source == "nvml-power"
        assert measured_j == pytest.approx(energy_j(shape, seen["start_s"], seen["end_s"]), rel=0.02)


def test_a_counter_that_falls_and_a_gpu_that_is_lost_give_no_figure(standin: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from cluster.meter import nvml
from cluster.meter.clock import SystemClock, Timeline
control, line, (gpu,) = Path(sys.argv[1]), Timeline(SystemClock()), nvml.devices()
def take():
    gpu.read(line.now())
    return gpu.take()
take(); time.sleep(0.1); print(take() is not None)
(control / "reset-0").write_text(str(time.time())); print(take()); time.sleep(0.1); print(0 < take() < 500)
(control / "lost-0").touch(); print(take(), take())
(control / "lost-0").unlink(); print(take()); time.sleep(0.1); print(0 < take() < 500)
"""
    out = python(code, environment(standin, devices="1", control=str(tmp_path)), str(tmp_path))
    assert out.split("\n")[:-1] == ["True", "None", "True", "None None", "None", "True"]


def test_gpu_ids_become_uuids_and_unknown_ones_stay(standin: Path) -> None:
    code = "from cluster.meter import uuids_of; print(uuids_of([1]), uuids_of(['GPU-x', '0']), uuids_of([9]))"
    first, second = (f"GPU-00000000-0000-0000-0000-{index:012d}" for index in (0, 1))
    out = python(code, environment(standin, devices="2"))
    assert out.strip() == f"{(second,)} {('GPU-x', first)} {('9',)}"


def test_a_host_without_nvml_has_no_gpus(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LD_LIBRARY_PATH": str(tmp_path)}
    broken = tmp_path / "libnvidia-ml.so.1"
    broken.write_text("not a library")
    assert python("from cluster.meter import nvml; print(nvml.devices())", env).strip() == "[]"


def test_the_curves_in_c_and_in_python_agree(standin: Path) -> None:
    code = """
import json, time, pynvml
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(3)]
out = []
for _ in range(40):
    before = time.time(); mj = [pynvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles]; after = time.time()
    out.append([before, after, mj]); time.sleep(0.01)
print(json.dumps(out))
"""
    epoch_s = int(time.time()) // 20 * 20 - 20
    out = json.loads(python(code, environment(standin, devices="3", shapes=",".join(SHAPES), epoch=str(epoch_s))))
    for before_s, after_s, counters_mj in out:
        for shape, counter_mj in zip(SHAPES, counters_mj, strict=True):
            low_j, high_j = energy_j(shape, epoch_s, before_s), energy_j(shape, epoch_s, after_s)
            assert low_j - 0.01 <= counter_mj / 1000 <= high_j + 0.01
