"""Meters in a real Ray whose GPUs are the NVML stand-in's: rows by rank, one meter a host, restarts.
In: two workers on a GPU each. Out: each one's joules within 1 % of the exact integral.
The cluster is this module's own, on loopback, and ends with it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.api import MeterRow
from tests.nvml import build
from tests.nvml.curves import exact_j

# Ray leaves its log files and sockets to the interpreter's end.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
SHAPES = ("square", "sawtooth")


@pytest.fixture(scope="module")
def ray_with_2_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One host with two Ray nodes, a stand-in GPU on each."""
    if build.compiler() is None:
        pytest.skip("no C compiler for the NVML stand-in")
    library = build.build(tmp_path_factory.mktemp("nvml"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in build.environment(library, devices="2", shapes=",".join(SHAPES)).items():
            patch.setenv(name, value)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray would replace 127.0.0.1 by the outer address
        import ray
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster

        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # the same, for this process
        node = {"num_cpus": 1, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "num_gpus": 2, "include_dashboard": False})
        try:
            cluster.add_node(**{**node, "num_gpus": 0, "resources": {"second": 1}})
            ray.init(address=cluster.address, log_to_driver=False)
            yield ray
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def spool(tmp_path: Path, ray_with_2_gpus: Any) -> Iterator[str]:
    """A spool of the test's own; its meter is ended with the test."""
    yield str(tmp_path / "spool")
    ray = ray_with_2_gpus
    for name in meters(ray, str(tmp_path / "spool")):
        ray.kill(ray.get_actor(name, namespace="lowtide"))


def meters(ray: Any, spool: str) -> list[str]:
    from cluster.meter.actor import _prefix

    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if actor["name"].startswith(_prefix(spool))]


def worker(spool: str, rank: int, duration_s: float, slot_s: float = 2.0) -> tuple[int, tuple[str, ...]]:
    """What a worker does with its host's meter."""
    import ray

    from cluster.meter import Owner, host_meter, uuids_of

    uuids = uuids_of(ray.get_gpu_ids())
    meter = host_meter(spool, slot_s)
    meter.register(Owner("job", "job-1", rank, os.getpid(), uuids))
    meter.mark("job-1", rank, "train")
    time.sleep(duration_s)
    meter.release("job-1", rank)
    return os.getpid(), uuids


def rows_of(rows: list[MeterRow], rank: int, uuid: str) -> list[MeterRow]:
    return sorted((row for row in rows if (row.rank, row.uuid) == (rank, uuid)), key=lambda row: row.start)


def test_each_worker_is_charged_what_its_gpu_drew(ray_with_2_gpus: Any, spool: str) -> None:
    ray = ray_with_2_gpus
    from cluster.meter import acknowledge, collect

    remote = ray.remote(num_gpus=1, num_cpus=0)(worker)
    held = ray.get([remote.remote(spool, rank, 6.0) for rank in range(2)])
    rows = collect(spool)
    assert {uuids for _, uuids in held} == {(f"GPU-00000000-0000-0000-0000-{index:012d}",) for index in range(2)}
    for rank, (_, (uuid,)) in enumerate(held):
        mine = rows_of(rows, rank, uuid)
        assert {row.source for row in mine} == {"nvml-counter"}
        assert {row.phase for row in mine} == {"start", "train"}
        assert all(before.end == after.start for before, after in zip(mine, mine[1:], strict=False))
        measured_j = sum(row.energy_j or 0.0 for row in mine)
        assert measured_j == pytest.approx(exact_j(SHAPES[int(uuid[-1])], mine), rel=0.01)
        assert any(row.rank == rank and row.device == "cpu" and row.energy_j for row in rows)
    assert any(row.job_id is None and row.phase == "idle" for row in rows)
    acknowledge(spool, rows)
    keys = {(row.device, row.seq) for row in rows}
    assert not keys & {(row.device, row.seq) for row in collect(spool)}


def test_two_ray_nodes_of_one_host_share_one_meter(ray_with_2_gpus: Any, spool: str) -> None:
    ray = ray_with_2_gpus
    on_first = ray.remote(num_gpus=1, num_cpus=0)(worker).remote(spool, 0, 1.0)
    on_second = ray.remote(resources={"second": 1}, num_cpus=0)(worker).remote(spool, 1, 1.0)
    ray.get([on_first, on_second])
    assert len(meters(ray, spool)) == 1


def test_a_killed_meter_comes_back_and_charges_on(ray_with_2_gpus: Any, spool: str) -> None:
    ray = ray_with_2_gpus
    from cluster.meter import collect, host_meter

    host_meter(spool, 2.0)
    (name,) = meters(ray, spool)
    actor = ray.get_actor(name, namespace="lowtide")
    working = ray.remote(num_gpus=1, num_cpus=0)(worker).remote(spool, 0, 14.0)
    while not any(row.rank == 0 and row.phase == "train" for row in collect(spool)):
        time.sleep(0.2)
    os.kill(ray.get(actor.ready.remote(2.0)), signal.SIGKILL)
    _, (uuid,) = ray.get(working)
    mine = rows_of(collect(spool), 0, uuid)
    assert all(before.end == after.start for before, after in zip(mine, mine[1:], strict=False))
    assert sum(row.energy_j or 0.0 for row in mine) == pytest.approx(exact_j(SHAPES[int(uuid[-1])], mine), rel=0.01)
    assert len({(row.device, row.seq) for row in mine}) == len(mine)


def test_a_killed_worker_is_released_by_itself(ray_with_2_gpus: Any, spool: str) -> None:
    ray = ray_with_2_gpus
    from cluster.meter import collect

    @ray.remote(num_gpus=1, num_cpus=0, max_retries=0)
    def dying() -> None:
        from cluster.meter import Owner, host_meter, uuids_of

        host_meter(spool, 900.0).register(Owner("job", "job-1", 0, os.getpid(), uuids_of(ray.get_gpu_ids())))
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(dying.remote())
    while not (rows := [row for row in collect(spool) if row.rank == 0 and row.uuid]):
        time.sleep(0.2)
    assert all(row.energy_j is not None for row in rows)


def test_a_spool_whose_meter_is_gone_is_read_and_acknowledged_here(ray_with_2_gpus: Any, spool: str) -> None:
    ray = ray_with_2_gpus
    from cluster.meter import acknowledge, collect

    ray.get(ray.remote(num_gpus=1, num_cpus=0)(worker).remote(spool, 0, 1.0))
    (name,) = meters(ray, spool)
    ray.kill(ray.get_actor(name, namespace="lowtide"))
    while meters(ray, spool) or not (rows := collect(spool)):
        time.sleep(0.2)
    assert any(row.rank == 0 for row in rows)
    acknowledge(spool, rows)
    assert collect(spool) == []
