"""A job on GPUs that the NVML stand-in shows: each rank is charged what its own GPU drew, from first to last moment.
In: two stand-in GPUs of different power curves under the real Ray, pynvml, meter, ledger and report.
The job trains on CPUs while it holds the GPUs, for nothing can compute on a stand-in.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from cluster.api import MeterRow
from tests.integration.command import Lowtide
from tests.integration.conftest import Opening
from tests.nvml import build
from tests.nvml.curves import energy_j, exact_j

pytestmark = pytest.mark.timeout(1800)  # its fixtures take minutes where others use the machine, too

SHAPES = ("square", "sawtooth")
UUIDS = [f"GPU-00000000-0000-0000-0000-{index:012d}" for index in range(len(SHAPES))]


@pytest.fixture(scope="module")
def site_with_2_gpus(lowtide_at: Opening, tmp_path_factory: pytest.TempPathFactory) -> Lowtide:
    """A site whose embedded Ray, started by the first run, finds two stand-in GPUs by itself."""
    if build.compiler() is None:
        pytest.skip("no C compiler for the NVML stand-in")
    library = build.build(tmp_path_factory.mktemp("nvml"))
    env = build.environment(library, devices=str(len(SHAPES)), shapes=",".join(SHAPES))
    return lowtide_at(env, zones={"DEMO": {"provider": "demo", "gpus": 2, "embodied_g_per_gpu_hour": 26}})


@pytest.fixture(scope="module")
def report(site_with_2_gpus: Lowtide) -> dict[str, Any]:
    """The report of a job that `lowtide run` took to its end."""
    spec = site_with_2_gpus.spec(
        "metered", workers={"count": 2, "gpus": 1, "cpus": 1}, env={"DS_ACCELERATOR": "cpu"}, checkpoint={"every": "1h"}
    )
    site_with_2_gpus.run("run", spec)
    said: dict[str, Any] = site_with_2_gpus.ask("report", "metered")
    assert (said["state"], said["step"]) == ("done", 40)
    return said


def span(rows: list[MeterRow]) -> tuple[float, float]:
    return rows[0].start.timestamp(), rows[-1].end.timestamp()


def rows_of(site: Lowtide, rank: int, uuid: str | None) -> list[MeterRow]:
    return [row for row in site.rows("metered") if (row.rank, row.uuid) == (rank, uuid)]


def test_every_rank_is_charged_what_its_gpu_drew_while_it_lived(
    site_with_2_gpus: Lowtide, report: dict[str, Any]
) -> None:
    on_gpus = {worker["rank"]: worker for worker in report["workers"] if worker["uuid"] is not None}
    assert sorted(on_gpus) == [0, 1]
    assert sorted(worker["uuid"] for worker in on_gpus.values()) == UUIDS
    for rank, worker in on_gpus.items():
        rows = rows_of(site_with_2_gpus, rank, worker["uuid"])
        assert worker["source"] == "nvml-counter" and worker["device"] == worker["uuid"]
        assert all(before.end == after.start for before, after in pairwise(rows))
        exact = energy_j(SHAPES[UUIDS.index(worker["uuid"])], *span(rows))
        assert worker["energy_j"] == pytest.approx(exact, rel=0.01)


def test_the_metered_span_is_the_workers_life(site_with_2_gpus: Lowtide, report: dict[str, Any]) -> None:
    for worker in report["workers"]:
        if worker["uuid"] is None:
            continue
        rows = rows_of(site_with_2_gpus, worker["rank"], worker["uuid"])
        on_cpu = rows_of(site_with_2_gpus, worker["rank"], None)
        phases = [row.phase for before, row in pairwise([None, *rows]) if before is None or before.phase != row.phase]
        assert phases == ["start", "train", "checkpoint", "evaluate", "checkpoint", "stop"]
        # Its process was there before it could register; both accounts end when it is released.
        assert on_cpu[0].start < rows[0].start and on_cpu[-1].end == rows[-1].end


def test_what_a_gpu_drew_for_nobody_is_the_hosts(site_with_2_gpus: Lowtide, report: dict[str, Any]) -> None:
    idle = site_with_2_gpus.idle_rows()
    assert {row.phase for row in idle} == {"idle"}
    for rank, uuid in ((worker["rank"], worker["uuid"]) for worker in report["workers"] if worker["uuid"] is not None):
        rows = rows_of(site_with_2_gpus, rank, uuid)
        before = [row for row in idle if row.uuid == uuid and row.end <= rows[0].start]
        assert before and before[-1].end == rows[0].start
        nobodys = [row for row in idle if row.uuid == uuid]
        exact = sum(energy_j(SHAPES[UUIDS.index(uuid)], row.start.timestamp(), row.end.timestamp()) for row in nobodys)
        assert sum(row.energy_j or 0.0 for row in nobodys) == pytest.approx(exact, rel=0.01)


def test_the_report_adds_up_and_counts_the_gpus_embodied_share(
    site_with_2_gpus: Lowtide, report: dict[str, Any]
) -> None:
    rows = site_with_2_gpus.rows("metered")
    metered_j = sum(row.energy_j or 0.0 for row in rows)
    assert report["energy_j"] == pytest.approx(metered_j) == pytest.approx(sum(report["phases"].values()))
    assert report["energy_j"] == pytest.approx(sum(worker["energy_j"] for worker in report["workers"]))
    gpus_j = sum(exact_j(shape, [r for r in rows if r.uuid == uuid]) for shape, uuid in zip(SHAPES, UUIDS, strict=True))
    assert metered_j > 0.99 * gpus_j
    assert report["emissions_g"]["embodied"] > 0
    assert report["unmetered_s"] == pytest.approx(0.0, abs=1.0)
