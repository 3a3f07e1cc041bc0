"""What jobs may use of a zone, in whole workers and by kind of GPU; whose the GPUs in use are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api import Node
from jobs.spec import JobSpec, Workers
from orchestrator.controller.capacity import Capacity
from orchestrator.controller.look import Look
from orchestrator.controller.pools import Limit, ever, limits, never
from orchestrator.site import Site, resolve_site
from orchestrator.store.fleets import Alike, Kind, Shown


@dataclass(frozen=True)
class Job:
    """A job that wants `count` workers in DE."""

    count: int
    takes: Workers

    @property
    def spec(self) -> JobSpec:
        return cast(JobSpec, SimpleNamespace(workers=self.takes, worker_counts=lambda: (self.count,)))

    def each(self, kind: Kind) -> int:
        return self.takes.gpus if kind == "gpus" else round(1000 * self.takes.cpus)

    def most(self, zone: str, kind: Kind) -> int:
        return self.count * self.each(kind) if zone == "DE" else 0


def job(count: int, gpus: int = 1, **takes: Any) -> Job:
    return Job(count, Workers.model_validate({"gpus": gpus, "cpus": 1, **takes}))


def zone(*nodes: tuple[int, str | None], cpus: int = 64) -> dict[str, Shown]:
    alike = tuple(Alike(kind, gpus, cpus, gpus, cpus) for gpus, kind in nodes)
    return {"DE": Shown(sum(gpus for gpus, _ in nodes), cpus * len(nodes), alike)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    zones = {"DE": {"provider": "demo", "gpus": 5}, "FR": {"provider": "demo"}}
    return resolve_site({"zones": zones}, tmp_path_factory.mktemp("site"), "test")


def holds(site: Site, shown: dict[str, Shown], jobs: list[Job]) -> bool:
    """Whether all of the jobs keep to all limits at once."""
    found = limits(site, shown, "gpus", jobs)["DE"]
    return all(
        each.most is None or sum(one.most("DE", "gpus") for one in jobs if each.counts(one, "gpus")) <= each.most
        for each in found
    )


def packed(nodes: list[int], jobs: list[Job]) -> bool:
    """Whether all workers find a node, the widest first."""
    free = list(nodes)
    for gpus in sorted((one.takes.gpus for one in jobs for _ in range(one.count)), reverse=True):
        index = next((index for index, left in enumerate(free) if left >= gpus), None)
        if index is None:
            return False
        free[index] -= gpus
    return True


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=5),
)
def test_jobs_keep_to_the_limits_where_their_workers_fit_on_the_nodes(
    site: Site, nodes: list[int], wanted: list[tuple[int, int]]
) -> None:
    jobs = [job(count, gpus) for count, gpus in wanted]
    shown = zone(*((gpus, None) for gpus in nodes))
    assert holds(site, shown, jobs) == packed(nodes, jobs)


def test_each_kind_has_its_limit_and_who_names_none_counts_in_all(site: Site) -> None:
    shown = zone((8, "H100"), (8, "A100"))
    named = [job(8, gpu_kind="A100"), job(8, gpu_kind="A100")]
    assert limits(site, shown, "gpus", named)["DE"] == (Limit(16), Limit(8, "A100", 1))
    assert not holds(site, shown, named)
    assert holds(site, shown, [named[0], job(8)])
    assert not holds(site, shown, [named[0], job(9)])
    assert limits(site, shown, "gpus", [job(8), job(4)])["DE"] == (Limit(16),)


def test_the_cpus_beside_a_gpu_count_too(site: Site) -> None:
    shown = zone((8, None), cpus=32)
    assert limits(site, shown, "gpus", [job(2, cpus=8)])["DE"] == (Limit(4),)
    assert limits(site, shown, "cpus", [job(1, gpus=0, cpus=20)])["DE"] == (Limit(20_000),)


def test_without_nodes_there_is_what_the_site_declares_and_nothing_where_others_have_some(site: Site) -> None:
    assert limits(site, {}, "gpus", [job(1)]) == {"DE": (Limit(5),), "FR": (Limit(None),)}
    assert limits(site, zone((8, None)), "gpus", [job(1)])["FR"] == (Limit(0),)


def test_what_never_fits_is_said_with_what_the_nodes_hold() -> None:
    shown = zone((4, "A100"), (4, "H100"))
    assert ever(["DE", "FR"], job(1, 4).takes, shown) == {"DE": 2}
    assert never(["DE"], job(2, 4).spec, shown) == ""
    assert never(["DE", "FR"], job(1, 8).spec, shown) == "", "nobody knows the nodes of FR"
    assert never(["DE"], job(1, 8).spec, shown) == (
        "waits for larger nodes, or more, in DE: 1 workers of 8 GPU and 1 CPU needed, 0 fit where all nodes are empty"
    )
    assert "2 workers of 4 A100 and 1 CPU needed, 1 fit" in never(["DE"], job(2, 4, gpu_kind="A100").spec, shown)


def test_what_segments_hold_is_told_from_what_others_do_node_by_node() -> None:
    held = SimpleNamespace(zone="DE", workers=1, ended=None)
    look = Look(
        now=datetime.now(timezone.utc),
        jobs=[cast(Any, SimpleNamespace(id="ours"))],
        segments={"ours": [cast(Any, held)]},
        curves={},
        versions={},
        learned={},
        specs={"ours": job(1, 8).spec},
    )
    nodes = [
        Node("a", "a", "DE", 8, 64, 4, 64),  # half of it is somebody else's
        Node("b", "b", "DE", 8, 64, 0, 63),
        Node("c", "c", "DE", 8, 64, 8, 64),
    ]
    capacity = Capacity()
    for _ in range(2):  # what others hold is believed the second time
        shown = capacity.read(nodes, look)["DE"]
    assert shown.gpus == 20
    assert sorted((each.gpus, each.all_gpus, each.number) for each in shown.nodes) == [(4, 8, 1), (8, 8, 2)]
