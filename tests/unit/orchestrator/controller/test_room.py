"""Whether a segment fits: by zone, by node and by kind of GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api import Node
from jobs.spec import Workers
from orchestrator.controller.room import Room


def node(zone: str, free_gpus: float, free_cpus: float = 64, kind: str | None = "H100") -> Node:
    return Node(f"{zone}-{kind}", "node", zone, 8, 64, free_gpus, free_cpus, kind)


def workers(**takes: object) -> Workers:
    return Workers.model_validate({"gpus": 1, "cpus": 4, **takes})


def test_a_worker_fits_whole_on_one_node() -> None:
    room = Room(lambda: [node("DE", 3), node("DE", 3)])
    assert room.fits("DE", workers(gpus=2)) == 2
    assert room.take("DE", 3, workers(gpus=2)) == "waits for room in DE: 3 workers of 2 GPU needed, 2 fit now"


def test_what_is_taken_is_gone_and_what_is_pending_too() -> None:
    room = Room(lambda: [node("DE", 8), node("FR", 8)])
    room.pending("DE", 2, workers())
    assert room.take("DE", 5, workers()) == ""
    assert (room.fits("DE", workers()), room.fits("FR", workers())) == (1, 8)


def test_cpus_count_as_gpus_do() -> None:
    room = Room(lambda: [node("DE", 8, free_cpus=9)])
    assert room.fits("DE", workers()) == 2
    assert room.fits("DE", workers(gpus=0, cpus=0.5)) == 18


@pytest.mark.parametrize(("kind", "fit"), [("H100", 2), ("A100", 5), (None, 7), ("B200", 0)])
def test_a_kind_of_gpu_takes_only_nodes_that_have_it(kind: str | None, fit: int) -> None:
    room = Room(lambda: [node("DE", 2), node("DE", 5, kind="A100")])
    assert room.fits("DE", workers(gpu_kind=kind)) == fit


def test_a_zone_without_such_a_node_says_so() -> None:
    room = Room(lambda: [node("DE", 8)])
    assert room.take("FR", 1, workers()) == "waits for a node with the label carbon-zone=FR: the cluster has none now"
    said = room.take("DE", 1, workers(gpu_kind="B200"))
    assert said == "waits for a node in DE with GPUs of kind B200: the cluster has none now"


def test_small_segments_leave_whole_nodes_whole() -> None:
    room = Room(lambda: [node("DE", 8), node("DE", 2), node("DE", 3)])
    for _ in range(2):
        assert room.take("DE", 2, workers()) == ""
    assert room.fits("DE", workers(gpus=8)) == 1


def test_the_workers_of_a_segment_go_to_as_few_nodes_as_possible() -> None:
    room = Room(lambda: [node("DE", 2), node("DE", 1), node("DE", 4), node("DE", 2)])
    assert room.take("DE", 5, workers()) == ""
    assert (room.fits("DE", workers(gpus=2)), room.fits("DE", workers())) == (2, 4)


def test_the_nodes_of_a_start_are_told() -> None:
    nodes = [Node(name, "node", "DE", 8, 64, free, 64, "H100") for name, free in (("a", 8), ("b", 2), ("c", 3))]
    room = Room(lambda: nodes)
    assert room.place("DE", 3, workers()) == ("", ("c",))
    assert room.place("DE", 9, workers()) == ("", ("a", "b"))
    assert room.place("DE", 2, workers(gpus=8)) == (
        "waits for room in DE: 2 workers of 8 GPU needed, 0 fit now",
        (),
    )
    assert room.take("DE", 1, workers(gpus=16)).startswith("waits for larger nodes, or more, in DE: 1 workers of 16")


def test_who_needs_no_gpu_takes_the_cpus_of_nodes_without_first() -> None:
    plain = Node("plain", "node", "DE", 0, 64, 0, 64)
    room = Room(lambda: [node("DE", 8, free_cpus=32), plain])
    assert room.take("DE", 16, workers(gpus=0)) == ""
    assert room.fits("DE", workers()) == 8


_SHAPES = [workers(), workers(gpus=2), workers(gpus=0, cpus=3), workers(gpu_kind="A100"), workers(cpus=16)]


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 64), st.sampled_from(["H100", "A100"])), max_size=5),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(_SHAPES)), max_size=12),
)
def test_whatever_was_taken_what_fits_is_what_is_left(
    nodes: list[tuple[int, int, str]], taken: list[tuple[int, Workers]]
) -> None:
    room = Room(lambda: [node("DE", gpus, cpus, kind) for gpus, cpus, kind in nodes])
    for count, each in taken:
        before = room.fits("DE", each)
        assert (room.take("DE", count, each) == "") == (before >= count)
        for shape in _SHAPES:
            # A copy remembers nothing of what was asked: it counts what is free.
            assert room.fits("DE", shape) == room.copy().fits("DE", shape)
        assert room.fits("DE", each) == before - (count if before >= count else 0)
