"""GPUs without an energy counter: power that nobody sampled is unknown, and said to be so.
In: a host whose GPUs tell their power alone; a meter that samples, pauses, dies. Out: rows with joules, or unmetered.
The stand-in's tests show how near the integral comes to the truth.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from cluster.api import MeterRow
from cluster.meter import Owner
from tests.unit.cluster.meter.doubles import Bench, of


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    found = Bench(tmp_path, with_counters=False)
    found.run_process(7)
    found.meter.register(Owner("job", "job-1", 0, 7, ("GPU-a",)))
    return found


def run(bench: Bench, seconds: int, gpu_w: float = 100.0) -> None:
    """Time passes with a reading every second."""
    for _ in range(seconds):
        bench.pass_s(1, gpu_w=gpu_w)
        bench.meter.tick()


def told(rows: list[MeterRow]) -> list[tuple[float, float | None]]:
    """Seconds and joules of each row; rows are adjacent."""
    assert all(before.end == after.start for before, after in pairwise(rows))
    return [((row.end - row.start).total_seconds(), row.energy_j) for row in rows]


def test_power_is_integrated_between_samples(bench: Bench) -> None:
    run(bench, 4)
    run(bench, 4, gpu_w=300)
    bench.meter.release("job-1", 0)
    rows = of(bench.spool.pull(), "GPU-a", 0)
    assert {row.source for row in rows} == {"nvml-power"}
    assert told(rows) == [(8.0, pytest.approx(4 * 100 + 200 + 3 * 300))]


def test_a_pause_of_the_sampling_is_unmetered(bench: Bench) -> None:
    run(bench, 3)
    bench.pass_s(20, gpu_w=700)
    bench.meter.tick()
    run(bench, 2)
    bench.meter.release("job-1", 0)
    assert told(of(bench.spool.pull(), "GPU-a", 0)) == [
        (3.0, pytest.approx(300)),
        (20.0, None),
        (2.0, pytest.approx(400 + 100)),
    ]


def test_the_absence_of_a_killed_meter_is_unmetered(bench: Bench) -> None:
    run(bench, 3)
    bench.meter.mark("job-1", 0, "train")  # on disk
    bench.crash()
    bench.pass_s(30)
    bench.meter = bench.new_meter()
    run(bench, 5)
    bench.meter.release("job-1", 0)
    assert told(of(bench.spool.pull(), "GPU-a", 0)) == [
        (3.0, pytest.approx(300)),
        (30.0, None),
        (5.0, pytest.approx(500)),
    ]


def test_what_a_killed_meter_had_not_written_is_unmetered_too(bench: Bench) -> None:
    bench.meter.mark("job-1", 0, "train")
    run(bench, 3)  # no edge: in memory alone
    bench.crash()
    bench.meter = bench.new_meter()
    run(bench, 2)
    bench.meter.release("job-1", 0)
    assert told(of(bench.spool.pull(), "GPU-a", 0)) == [(3.0, None), (2.0, pytest.approx(200))]
