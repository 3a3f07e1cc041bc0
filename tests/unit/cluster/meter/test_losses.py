"""What NVML does to a meter in the long run: resets, wraps, lost GPUs, restarts, refusals, slices, other orders.
In: the NVML stand-in, told by files what to do. Out: joules, or None, and the label of each; never zero, never less.
Each case runs in a process of its own, on the real pynvml.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cluster.meter.standin import environment, python

ASK = """
import sys, time, logging
from pathlib import Path
from cluster.meter import nvml
from cluster.meter.clock import SystemClock, Timeline
logging.basicConfig(format="%(message)s", stream=sys.stderr)
control, line = Path(sys.argv[1]), Timeline(SystemClock())
def take(gpu, wait_s=0.05):
    time.sleep(wait_s)
    gpu.read(line.now())
    energy_j = gpu.take()
    return "none" if energy_j is None else "read" if 0 < energy_j < 500 else f"wrong: {energy_j}"
def told(*what): print(*what, flush=True)
"""
GPU = "GPU-00000000-0000-0000-0000-00000000000{}"
MIG = "MIG-00000000-0000-0000-0000-00000000000{}"


def asked(standin: Path, control: Path, code: str, **settings: str) -> list[str]:
    env = environment(standin, control=str(control), **{"devices": "1", "shapes": "constant", **settings})
    return python(ASK + code, env, str(control)).splitlines()


def test_a_counter_that_wraps_spoils_one_interval(standin: Path, tmp_path: Path) -> None:
    code = "gpu, = nvml.devices(); take(gpu); told(*[take(gpu, 0.04) for _ in range(12)])"
    (said,) = asked(standin, tmp_path, code, wrap_j="50")  # every 0.2 s of 250 W
    assert set(said.split()) == {"read", "none"}


def test_a_restarted_driver_is_asked_anew(standin: Path, tmp_path: Path) -> None:
    code = """
gpu, = nvml.devices(); take(gpu); told(take(gpu))
(control / "down-0").touch(); told(take(gpu), take(gpu)); (control / "down-0").unlink()
told(take(gpu), take(gpu))
"""
    assert asked(standin, tmp_path, code) == ["read", "none none", "none read"]


def test_a_driver_that_comes_late_is_found_when_an_owner_names_its_gpu(standin: Path, tmp_path: Path) -> None:
    code = f"""
(control / "down-0").touch(); told(nvml.devices(), nvml.find("{GPU.format(0)}")); (control / "down-0").unlink()
gpu = nvml.find("{GPU.format(0)}"); take(gpu); told(gpu.source, take(gpu), nvml.find("GPU-x"))
"""
    assert asked(standin, tmp_path, code) == ["[] None", "nvml-counter read None"]


def test_a_gpu_that_is_lost_at_the_start_is_read_by_its_counter_once_it_is_back(standin: Path, tmp_path: Path) -> None:
    code = """
(control / "lost-0").touch(); gpu, = nvml.devices(); told(gpu.source, take(gpu)); (control / "lost-0").unlink()
take(gpu); told(take(gpu))
"""
    assert asked(standin, tmp_path, code) == ["nvml-counter none", "read"]


def test_a_refused_counter_leaves_its_power_and_a_refused_gpu_is_unmetered(standin: Path, tmp_path: Path) -> None:
    (tmp_path / "refused-0").write_text("1")
    (tmp_path / "refused-1").write_text("0")
    code = """
for gpu in nvml.devices(): take(gpu); told(gpu.source, take(gpu))
(control / "refused-1").unlink(); take(gpu); told(take(gpu))
"""
    assert asked(standin, tmp_path, code, devices="2") == ["nvml-power read", "nvml-counter none", "read"]


@pytest.mark.parametrize(("sensor_ms", "sample_s"), [("", 0.1), ("20", 0.05), ("100", 0.1), ("1000", 0.5)])
def test_power_is_sampled_as_often_as_the_sensor_changes(
    standin: Path, tmp_path: Path, sensor_ms: str, sample_s: float
) -> None:
    code = "gpu, = nvml.devices(); told(gpu.source, round(gpu.sample_s, 3))"
    assert asked(standin, tmp_path, code, no_counter="1", sensor_ms=sensor_ms) == [f"nvml-power {sample_s}"]


def test_a_slice_is_a_share_of_its_gpu(standin: Path, tmp_path: Path) -> None:
    code = f"""
for number in (1, 2):
    piece = nvml.find(f"MIG-00000000-0000-0000-0000-{{number:012d}}")
    told(piece.parent.uuid, piece.parent.source, round(piece.share * 7, 6))
told(nvml.find("{MIG.format(3)}"), nvml.uuids_of(["{MIG.format(1)}"]))
"""
    assert asked(standin, tmp_path, code, slices="3,4") == [
        f"{GPU.format(0)} nvml-counter 3.0",
        f"{GPU.format(0)} nvml-counter 4.0",
        f"None ('{MIG.format(1)}',)",
    ]


def test_visible_devices_renumber_nothing_and_beginnings_of_uuids_are_enough(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    code = f"told(*nvml.uuids_of(['2', 0, '{GPU.format(1)}', 'GPU-0'])); told(len(nvml.devices()))"
    said = asked(standin, tmp_path, code, devices="3")
    assert said == [f"{GPU.format(2)} {GPU.format(0)} {GPU.format(1)} GPU-0", "3"]
    assert asked(standin, tmp_path, "told(*nvml.uuids_of(['GPU-0']))") == [GPU.format(0)]


def test_numbers_of_unlike_gpus_are_doubted_unless_cuda_counts_by_the_bus(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "logging.root.handlers[0].setStream(sys.stdout); nvml.uuids_of([0])"
    assert asked(standin, tmp_path, code, devices="2", names="A100,T4")[0].startswith("GPUs of this host differ")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert asked(standin, tmp_path, code, devices="2", names="A100,T4") == []
