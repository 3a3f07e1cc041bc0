"""What a host draws for all of its GPUs, its processors and its memory, is borne by who holds them.
In: GPUs that draw unlike, ranks with and without them, CPU time. Out: joules of each rank and of the idle account.
The property test beside this holds that they are the host's in sum, whatever happens.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.meter import Owner
from cluster.meter.share import Weights
from tests.unit.cluster.meter.doubles import Bench, of, total_j

HOST_W = 2 * 3.0
"""Two cores that wait."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def hold(bench: Bench, rank: int, *uuids: str) -> None:
    if rank + 7 not in bench.host.processes:
        bench.run_process(rank + 7)
    bench.meter.register(Owner("job", "job-1", rank, rank + 7, uuids))


def draw(bench: Bench, duration_s: float, busy: dict[int, float] | None = None, **watts: float) -> None:
    """GPUs draw 100 W each unless `a` or `b` says otherwise."""
    bench.pass_s(duration_s, busy)
    for name, power_w in watts.items():
        bench.counters[f"GPU-{name}"].energy_j += (power_w - 100) * duration_s


def cpu_j(bench: Bench, rank: int | None) -> float:
    return total_j(of(bench.spool.pull(), "cpu", rank))


def test_ranks_and_gpus_of_nobody_bear_the_host_by_their_gpus_energy(bench: Bench) -> None:
    hold(bench, 0, "GPU-a")
    draw(bench, 10, {7: 1.0, 0: 9.0}, a=300)
    bench.meter.stop()
    host_j = bench.host_cpu_j()
    assert (cpu_j(bench, 0), cpu_j(bench, None)) == (pytest.approx(host_j * 0.75), pytest.approx(host_j * 0.25))


def test_a_host_whose_gpus_are_all_held_leaves_nothing_idle(bench: Bench) -> None:
    hold(bench, 0, "GPU-a")
    hold(bench, 1, "GPU-b")
    draw(bench, 10, a=60, b=540)
    bench.meter.stop()
    assert cpu_j(bench, 0) == pytest.approx(0.1 * 10 * HOST_W)
    assert cpu_j(bench, 1) == pytest.approx(0.9 * 10 * HOST_W)
    assert cpu_j(bench, None) == 0.0


def test_a_rank_without_a_gpu_bears_its_cpu_time_and_the_others_what_is_left(bench: Bench) -> None:
    hold(bench, -1)
    hold(bench, 0, "GPU-a", "GPU-b")
    draw(bench, 10, {6: 4.0, 7: 5.0})
    bench.meter.stop()
    assert cpu_j(bench, -1) == pytest.approx(4 * 10)
    assert cpu_j(bench, 0) == pytest.approx(bench.host_cpu_j() - 4 * 10)


def test_a_host_without_gpus_is_borne_by_cpu_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, counters={})
    hold(bench, 0)
    hold(bench, 1, "GPU-x")  # which no NVML here knows
    bench.pass_s(10, {7: 3.0, 8: 1.0, 0: 2.0})
    bench.meter.stop()
    assert cpu_j(bench, 0) == pytest.approx(30) and cpu_j(bench, 1) == pytest.approx(10)
    assert cpu_j(bench, None) == pytest.approx(20 + 14 * 3)


def test_where_a_gpu_cannot_be_read_all_count_alike(bench: Bench) -> None:
    hold(bench, 0, "GPU-a")
    bench.counters["GPU-b"].lost = True
    draw(bench, 10, a=900)
    bench.meter.stop()
    assert cpu_j(bench, 0) == cpu_j(bench, None) == pytest.approx(10 * HOST_W / 2)


def test_slices_bear_their_share(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slices={"MIG-3": ("GPU-a", 3 / 7)})
    hold(bench, 0, "MIG-3")
    draw(bench, 7, a=100, b=0)
    bench.meter.stop()
    assert cpu_j(bench, 0) == pytest.approx(3 / 7 * 7 * HOST_W)
    assert cpu_j(bench, None) == pytest.approx(4 / 7 * 7 * HOST_W)


def test_a_killed_rank_bears_the_host_until_it_was_seen_to_be_gone(bench: Bench) -> None:
    hold(bench, 0, "GPU-a", "GPU-b")
    bench.pass_s(1)
    bench.meter.tick()
    bench.host.processes[7].alive = False
    bench.pass_s(1)
    bench.meter.tick()
    bench.pass_s(5)
    bench.meter.stop()
    assert cpu_j(bench, 0) == pytest.approx(2 * HOST_W)
    assert cpu_j(bench, None) == pytest.approx(5 * HOST_W)


def test_cpu_time_from_before_a_rank_registered_is_paid_back_though_nothing_is_idle(bench: Bench) -> None:
    hold(bench, 0, "GPU-a", "GPU-b")
    bench.run_process(8)
    bench.pass_s(10, {8: 8.0})
    bench.meter.tick()
    bench.meter.register(Owner("job", "job-1", 1, 8, ("GPU-b",)))
    assert bench.meter.owed_j == pytest.approx(80)
    bench.pass_s(20)
    bench.meter.stop()
    assert bench.meter.owed_j == 0
    assert sum(cpu_j(bench, rank) for rank in (0, 1)) == pytest.approx(bench.host_cpu_j())


@pytest.mark.parametrize("weights", [Weights([]), Weights([0.0, 0.0]), Weights([], 3.0)])
def test_where_nobody_weighs_all_is_idle(weights: Weights) -> None:
    assert weights.share(7.0)[1] == 7.0


def test_no_rounding_is_lost() -> None:
    parts_j, idle_j = Weights([0.1] * 7 + [1e-9]).share(1 / 3)
    assert (sum(sorted(parts_j)), idle_j) == (pytest.approx(1 / 3, rel=1e-15), 0.0)
