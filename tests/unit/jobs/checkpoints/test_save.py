"""Saving beside the training: what was held is what is written, nothing counts before all of it is, faults are told."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from jobs.checkpoints import checkpoint, saving
from jobs.checkpoints.checkpoint import Sealed
from jobs.checkpoints.save import Saver
from jobs.checkpoints.shelf import Shelf
from jobs.checkpoints.snapshot import Held, Snapshot, frozen
from jobs.group import Group
from jobs.pace import Parts
from jobs.patience import GivenUp
from jobs.place import Place
from jobs.spec import JobFault, Unavailable


class Disk:
    """Real files, once the test lets them be written."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.fault: Exception | None = None

    def write(self, held: list[Held], over: threading.Event) -> dict[Path, Sealed]:
        while not self.free.wait(0.01):
            if over.is_set():
                raise GivenUp
        if self.fault is not None:
            raise self.fault
        return saving.write(held, over)


class Weights:
    """An engine of one tensor, which a step changes in place."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.snapshot = Snapshot(None)
        self.weight = torch.zeros(4)

    def save(self, folder: Path, tag: str, beside: bool) -> None:
        self.snapshot.begin(copies=beside)
        self.snapshot.makedirs(str(folder / tag), exist_ok=True)
        self.snapshot.save({"weight": self.weight}, str(folder / tag / "weights.pt"))

    def finish_save(self, over: threading.Event) -> dict[Path, Sealed]:
        return self.disk.write(self.snapshot.take(), over)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        yield Place(0, 1, 0, "cpu", tmp_path_factory.mktemp("group"), None, "job-1")
        dist.destroy_process_group()


@pytest.fixture
def saver(place: Place, tmp_path: Path) -> Iterator[Saver]:
    here = Place(0, 1, 0, "cpu", tmp_path, None, "job-1")
    made = Saver(Group(here), here, Shelf(here, 2, Parts()), Parts())
    yield made
    made.close()


def begin(saver: Saver, engine: Any, step: int, beside: bool = True, room_bytes: int = 0) -> None:
    saver.begin(engine, {"step": step}, room_bytes, beside)


def weight_of(folder: Path) -> tuple[int, list[float]] | None:
    found = checkpoint.newest(folder)
    return None if found is None else (found.step, torch.load(found.folder / "weights.pt")["weight"].tolist())


def test_what_is_written_beside_later_steps_is_the_state_of_its_own(saver: Saver, tmp_path: Path) -> None:
    engine = Weights()
    engine.disk.free.clear()
    begin(saver, engine, 1)
    engine.weight += 1
    assert (saver.in_flight, saver.is_written) == (1, False)
    assert checkpoint.newest(tmp_path) is None
    engine.disk.free.set()
    assert saver.finish(waits=True).step == 1
    assert saver.in_flight is None
    assert weight_of(tmp_path) == (1, [0.0] * 4)


def test_the_one_before_counts_until_all_of_the_next_is_written(saver: Saver, tmp_path: Path) -> None:
    engine = Weights()
    begin(saver, engine, 1, beside=False)
    saver.finish(waits=True)
    engine.weight += 1
    engine.disk.free.clear()
    begin(saver, engine, 2)
    assert weight_of(tmp_path) == (1, [0.0] * 4)
    engine.disk.free.set()
    saver.finish(waits=False)
    assert weight_of(tmp_path) == (2, [1.0] * 4)


@pytest.mark.parametrize(("fault", "told"), [(Unavailable("no room"), Unavailable), (ValueError("odd"), JobFault)])
def test_a_fault_of_the_writer_is_raised_at_the_next_check_and_the_one_before_stands(
    saver: Saver, tmp_path: Path, fault: Exception, told: type[Exception]
) -> None:
    engine = Weights()
    begin(saver, engine, 1)
    saver.finish(waits=False)
    engine.disk.fault = fault
    begin(saver, engine, 2)
    while not saver.is_written:
        pass
    with pytest.raises((told, type(fault)), match=str(fault)):
        saver.finish(waits=False)
    assert saver.in_flight is None
    assert weight_of(tmp_path) == (1, [0.0] * 4)
    engine.disk.fault = None
    begin(saver, engine, 3)
    saver.finish(waits=False)
    assert weight_of(tmp_path) == (3, [0.0] * 4)


def test_one_that_is_abandoned_leaves_the_one_before_and_the_next_is_written(saver: Saver, tmp_path: Path) -> None:
    engine = Weights()
    begin(saver, engine, 1)
    saver.finish(waits=False)
    engine.disk.free.clear()
    begin(saver, engine, 2)
    saver.abandon()
    assert (saver.in_flight, weight_of(tmp_path)) == (None, (1, [0.0] * 4))
    engine.weight += 1
    engine.disk.free.set()
    begin(saver, engine, 3, beside=False)
    saver.finish(waits=True)
    assert weight_of(tmp_path) == (3, [1.0] * 4)
    assert not list(tmp_path.glob("*.partial"))


def test_one_that_had_failed_is_abandoned_without_a_word(saver: Saver, tmp_path: Path) -> None:
    engine = Weights()
    engine.disk.fault = Unavailable("no room")
    begin(saver, engine, 1)
    saver.abandon()
    assert (saver.in_flight, weight_of(tmp_path)) == (None, None)


def test_only_the_newest_stay_once_the_shelf_has_settled(saver: Saver, tmp_path: Path) -> None:
    engine = Weights()
    for step in (1, 2, 3, 4):
        begin(saver, engine, step)
        saver.finish(waits=True)
    saver._shelf.settle()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000004"]


def test_a_disk_without_room_is_told_before_anything_is_written(saver: Saver, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="make room"):
        begin(saver, Weights(), 1, room_bytes=1 << 60)
    assert saver.in_flight is None
    assert not list(tmp_path.glob("*.partial"))


def test_what_is_held_shares_no_memory_with_the_training_and_stays_tied() -> None:
    weight = torch.arange(6.0)
    state = {"a": OrderedDict(x=weight, tied=weight), "parts": [weight[2:4], (torch.ones(1), "text")], "lr": 0.1}
    held = frozen(state, {})
    weight += 1
    state["lr"] = 0.2
    assert held["a"]["x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert held["a"]["tied"] is held["a"]["x"]
    assert isinstance(held["a"], OrderedDict)
    assert held["parts"][0].tolist() == [2, 3]
    assert held["parts"][0].untyped_storage().nbytes() == 8
    assert (held["parts"][1][1], held["lr"]) == ("text", 0.1)
