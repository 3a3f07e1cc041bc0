"""A GPU in parts: slices, owners that share, owners that name what nobody knows.
In: GPUs of 100 W, slices of them, and owners. Out: rows of each by the share it holds, labelled; the rest idle.
The stand-in's tests show where a slice's share comes from.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.meter import Owner
from tests.unit.cluster.meter.doubles import Bench, of, total_j


def hold(bench: Bench, rank: int, *uuids: str, job: str = "job") -> None:
    if rank + 7 not in bench.host.processes:
        bench.run_process(rank + 7)
    bench.meter.register(Owner(job, f"{job}-1", rank, rank + 7, uuids))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, slices={"MIG-3": ("GPU-a", 3 / 7), "MIG-2": ("GPU-a", 2 / 7)})


def test_slices_take_their_share_and_what_no_slice_takes_is_idle(bench: Bench) -> None:
    hold(bench, 0, "MIG-3")
    bench.pass_s(7)
    hold(bench, 1, "MIG-2")
    bench.pass_s(7)
    bench.meter.release("job-1", 0)
    bench.pass_s(7)
    bench.meter.stop()
    rows = bench.spool.pull()
    assert total_j(of(rows, "MIG-3", 0)) == pytest.approx(600)
    assert total_j(of(rows, "MIG-2", 1)) == pytest.approx(400)
    assert total_j(of(rows, "GPU-a", None)) == pytest.approx(2100 - 1000)
    assert {row.source for row in rows if row.device in ("MIG-3", "MIG-2", "GPU-a")} == {"apportioned"}
    assert {row.uuid for row in of(rows, "MIG-3", 0)} == {"MIG-3"}
    assert {row.source for row in of(rows, "GPU-b", None)} == {"nvml-counter"}


def test_two_jobs_on_one_gpu_have_equal_parts_that_are_labelled(bench: Bench) -> None:
    hold(bench, 0, "GPU-a")
    bench.pass_s(4)
    hold(bench, 1, "GPU-a", job="other")
    bench.pass_s(6)
    bench.meter.release("other-1", 1)
    bench.pass_s(5)
    bench.meter.release("job-1", 0)
    mine = of(bench.spool.pull(), "GPU-a", 0)
    assert [(row.source, row.energy_j) for row in mine] == [
        ("nvml-counter", pytest.approx(400)),
        ("apportioned", pytest.approx(300)),
        ("nvml-counter", pytest.approx(500)),
    ]
    assert total_j(of(bench.spool.pull(), "GPU-a", 1)) == pytest.approx(300)


def test_a_slice_and_its_whole_gpu_together_are_never_more_than_the_gpu(bench: Bench) -> None:
    hold(bench, 0, "MIG-3")
    hold(bench, 1, "GPU-a")
    bench.pass_s(10)
    bench.meter.stop()
    rows = [row for row in bench.spool.pull() if row.device in ("MIG-3", "GPU-a")]
    assert total_j(rows) == pytest.approx(1000)
    assert total_j(of(rows, "MIG-3", 0)) == pytest.approx(300)


def test_a_slice_of_a_lost_gpu_is_unmetered_and_so_is_the_rest(bench: Bench) -> None:
    hold(bench, 0, "MIG-3")
    bench.counters["GPU-a"].lost = True
    bench.pass_s(5)
    bench.meter.stop()
    rows = bench.spool.pull()
    assert [row.energy_j for row in of(rows, "MIG-3", 0)] == [None]
    assert [row.energy_j for row in of(rows, "GPU-a", None)] == [None]


def test_a_slice_that_nvml_learns_of_later_is_metered_from_then_on(bench: Bench) -> None:
    hold(bench, 0, "MIG-1")
    bench.pass_s(16)
    bench.meter.tick()
    bench.slices["MIG-1"] = ("GPU-a", 1 / 7)
    bench.pass_s(16)
    bench.meter.tick()
    bench.pass_s(7)
    bench.meter.stop()
    assert [row.energy_j for row in of(bench.spool.pull(), "MIG-1", 0)] == [None, pytest.approx(100)]


def test_an_idle_gpu_that_a_job_holds_is_the_jobs(bench: Bench) -> None:
    hold(bench, 0, "GPU-a", "GPU-b")
    bench.pass_s(10, gpu_w=60)
    bench.meter.stop()
    rows = bench.spool.pull()
    assert total_j(of(rows, "GPU-b", 0)) == pytest.approx(600)
    assert of(rows, "GPU-b", None) == []
