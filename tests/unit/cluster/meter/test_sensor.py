"""What a GPU's own sensor sees, by architecture and name, in the words of `doctor`.
In: names of GPUs, and the NVML stand-in. Out: means, shares of time, one line for each kind of GPU.
Nothing here measures: the facts are NVIDIA's and of the paper that the module names.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.meter.sensor import Sensor, sensor_of
from tests.unit.cluster.meter.standin import environment, python


@pytest.mark.parametrize(
    ("architecture", "name", "sensor"),
    [
        (5, "Tesla V100-SXM2-16GB", Sensor(0.0, 1.0)),
        (7, "NVIDIA A100-SXM4-80GB", Sensor(0.0, 0.25)),
        (7, "NVIDIA A10", Sensor(1.0, 1.0)),
        (9, "NVIDIA H100 80GB HBM3", Sensor(1.0, 0.25)),
        (None, "NVIDIA RTX 4090", Sensor(1.0, 1.0)),
    ],
)
def test_a_sensor_is_known_by_its_gpu(architecture: int | None, name: str, sensor: Sensor) -> None:
    assert sensor_of(architecture, name) == sensor


def test_each_kind_of_gpu_is_described_once_with_how_it_is_read(standin: Path) -> None:
    code = "from cluster.meter import nvml; print(*nvml.described(), sep='\\n')"
    said = python(code, environment(standin, devices="3", names="NVIDIA A100-SXM4,NVIDIA A10")).splitlines()
    assert [line.split("; ")[0] for line in said] == [
        "2 x NVIDIA A100-SXM4, by its energy counter",
        "1 x NVIDIA A10, by its energy counter",
    ]
    assert "looks 25 % of the time" in said[0] and "a mean over 1 s" in said[1]
    (said_power,) = python(code, environment(standin, devices="1", no_counter="1", sensor_ms="20")).splitlines()
    assert "by power every 0.05 s" in said_power
