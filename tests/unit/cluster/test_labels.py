"""Which nodes a segment may take: those of its zone and kind, and those that were chosen while they have room."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from cluster.api import Desire, SegmentOrder
from cluster.labels import GPU_KIND, NODE, ZONE, selector
from jobs.spec import JobSpec


def order(workers: int, nodes: tuple[str, ...], **takes: object) -> SegmentOrder:
    spec = JobSpec.model_validate(
        {
            "name": "tiny",
            "job": "train",
            "model": {"config": {"model_type": "llama"}},
            "data": {"files": ["x.txt"]},
            "training": {"steps": 1, "batch_size": 12},
            "workers": {"count": workers, "gpus": 1, "cpus": 2, **takes},
        }
    )
    desire = Desire(datetime.now(timezone.utc), "expired", 1)
    return SegmentOrder("tiny-1", "tiny", "start", "DE", workers, spec, desire, 60.0, "/c", None, "/s", nodes=nodes)


def test_the_zone_and_the_kind_of_gpu_that_the_job_names() -> None:
    assert selector(order(1, ()), {}) == {ZONE: "DE"}
    assert selector(order(1, (), gpu_kind="A100"), {}) == {ZONE: "DE", GPU_KIND: "A100"}


@pytest.mark.parametrize(
    ("free", "are_named"),
    [
        ({"a": {"GPU": 2, "CPU": 4}, "b": {"GPU": 1, "CPU": 2}}, True),
        ({"a": {"GPU": 3, "CPU": 6}}, True),
        ({"a": {"GPU": 2, "CPU": 4}, "b": {"CPU": 2}}, False),
        ({"a": {"GPU": 8, "CPU": 3}, "b": {"GPU": 1, "CPU": 2}}, False),
        ({"a": {"GPU": 2, "CPU": 4}, "c": {"GPU": 8, "CPU": 64}}, False),
        ({}, False),
    ],
)
def test_the_nodes_that_were_chosen_while_they_have_room_for_all(
    free: dict[str, dict[str, float]], are_named: bool
) -> None:
    found = selector(order(3, ("a", "b")), free)
    assert found == {ZONE: "DE"} | ({NODE: "in(a,b)"} if are_named else {})
