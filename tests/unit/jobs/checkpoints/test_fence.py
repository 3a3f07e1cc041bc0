"""The fence: a segment that wakes up late publishes, overwrites and removes nothing of the one that took over.
Two segments share a folder and move one system call at a time, in every order that is drawn.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.checkpoints import checkpoint, fence, pointer, resume, sealing, target
from jobs.checkpoints.bring import bring
from jobs.checkpoints.mirror import send
from jobs.checkpoints.target import Target
from jobs.patience import Pulse
from jobs.place import Place
from jobs.spec import Fenced
from tests.unit.jobs.checkpoints.turns import Actor, Turns


def save(folder: Path, step: int, segment: int, keep: int = 2) -> checkpoint.Published:
    """A checkpoint of one rank whose content follows from its step, as training's does."""
    with fence.blamed(folder, segment):
        fence.check(folder, segment)
        checkpoint.clear(folder, segment)
        partial = checkpoint.partial_of(folder, step, segment)
        checkpoint.begin(partial, {"step": step, "segment": segment})
        (partial / "rank-0.pt").write_bytes(bytes([step]) * 1000)
        sealed = checkpoint.seal(partial)
    return checkpoint.publish(folder, step, sealed, keep, segment=segment)


def find(folder: Path, segment: int, keep: int = 2) -> checkpoint.Published | None:
    """What a segment does at its start."""
    return resume.find(Place(0, 1, 0, "cpu", folder, None, f"job-{segment}", segment=segment), keep).found


def is_whole(found: checkpoint.Published | None) -> bool:
    return found is not None and (found.folder / "rank-0.pt").read_bytes() == bytes([found.step]) * 1000


class Segments:
    """Segment 1 has published steps 1 and 2, and goes on to 4; segment 2 takes over, and goes on two steps."""

    def __init__(self, turns: Turns, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        find(folder, 1, keep)
        for step in (1, 2):
            save(folder, step, 1, keep)
        self.believed = 2
        """The step that segment 1 last published, by all that it knows."""
        self.found: checkpoint.Published | None = None
        """What segment 2 goes on from."""
        self.published: list[checkpoint.Published] = []
        """What segment 2 has published."""
        self.fenced = False
        self.early = turns.begin(self._early)
        self.late = turns.begin(self._late)

    def _early(self) -> None:
        try:
            for step in (3, 4):
                self.believed = save(self.folder, step, 1, self.keep).step
        except Fenced as fault:
            assert "fenced by segment 2" in str(fault)
            self.fenced = True

    def _late(self) -> None:
        self.found = find(self.folder, 2, self.keep)
        assert self.found is not None
        first = self.found.step
        for step in (first + 1, first + 2):
            self.published.append(save(self.folder, step, 2, self.keep))

    def look(self) -> None:
        """What must be so between any two calls."""
        if self.found is not None:
            reached = (self.published or [self.found])[-1]
            newest = checkpoint.newest(self.folder)
            assert newest is not None and newest.segment == 2 and newest.step >= reached.step
            assert newest.folder.name.endswith("-2") and is_whole(newest)

    def judge(self) -> None:
        """What must be so in the end."""
        assert self.found is not None and self.found.step >= self.believed, "what was published is gone on from"
        newest = checkpoint.newest(self.folder)
        assert newest == self.published[-1] and is_whole(newest) and newest.step == self.found.step + 2
        assert self.fenced or self.believed == 4


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Threads of `bounded` would hide whose call it is."""
    return inline(monkeypatch)


def inline(patch: pytest.MonkeyPatch) -> Turns:
    def bounded(_what: str, act: Callable[[Pulse], Any], _silence_s: float | None = None) -> Any:
        return act(Pulse(60.0))

    def together(_what: str, acts: list[Callable[[Pulse], Any]], _silence_s: float | None = None) -> list[Any]:
        return [act(Pulse(60.0)) for act in acts]

    for module in (checkpoint, resume, sealing):
        patch.setattr(module, "bounded", bounded)
    patch.setattr(sealing, "together", together)
    return Turns(patch)


def moves_of(tmp_path: Path, turns: Turns, keep: int, who: str) -> int:
    """How many calls one of them does where the other does nothing before."""
    segments = Segments(turns, tmp_path / "count", keep)
    actor: Actor = getattr(segments, who)
    moves = 1
    while actor.move():
        moves += 1
    segments.early.finish()
    segments.late.finish()
    return moves


def test_stalled_between_any_two_calls_the_early_one_wakes_up_fenced_and_changes_nothing(
    tmp_path: Path, turns: Turns
) -> None:
    fenced, keep = [], 1
    for stall in range(moves_of(tmp_path, turns, keep, "early")):
        segments = Segments(turns, tmp_path / str(stall), keep)
        for _ in range(stall):
            segments.early.move()
        segments.late.finish()
        segments.look()
        kept = sorted(path.name for path in segments.folder.glob("step-*-2"))
        segments.early.finish()
        segments.look()
        segments.judge()
        assert sorted(path.name for path in segments.folder.glob("step-*-2")) == kept
        fenced.append(segments.fenced)
    assert fenced[0] and fenced.count(True) > len(fenced) // 2


def test_killed_between_any_two_calls_the_late_one_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, turns: Turns
) -> None:
    keep = 1
    for kill in range(moves_of(tmp_path, turns, keep, "late")):
        segments = Segments(turns, tmp_path / str(kill), keep)
        segments.early.move()
        for _ in range(kill):
            segments.late.move()
        segments.late.kill()
        segments.early.finish()
        third = find(segments.folder, 3, keep)
        assert third is not None and third.segment == 3 and is_whole(third)
        assert third.step >= segments.believed
        assert third.step >= max((each.step for each in segments.published), default=0)


@settings(max_examples=25)
@example([(False, 1), (False, 1), (True, 1), (True, 11), (False, 9), (True, 1)], 1).via(
    "a partial cleared while written to"
)
@given(order=st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=25), keep=st.integers(1, 2))
def test_in_whatever_order_they_move_the_late_one_wins(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[bool, int]], keep: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        segments = Segments(inline(patch), tmp_path_factory.mktemp("fence"), keep)
        for early, moves in order:
            for _ in range(moves):
                (segments.early if early else segments.late).move()
                segments.look()
        segments.late.finish()
        segments.early.finish()
        segments.look()
        segments.judge()
    shutil.rmtree(segments.folder)


def test_of_two_processes_that_run_as_one_segment_one_may_publish(tmp_path: Path) -> None:
    ended: list[str] = []

    def claim() -> None:
        try:
            fence.claim(tmp_path, 7)
            ended.append("has it")
        except Fenced as fault:
            ended.append(str(fault))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count("has it") == 1
    assert all("another process runs as segment 7" in each for each in ended if each != "has it")


def test_an_earlier_segment_that_starts_late_is_refused(tmp_path: Path) -> None:
    assert find(tmp_path, 2) is None
    with pytest.raises(Fenced, match="fenced by segment 2"):
        find(tmp_path, 1)


def test_where_there_are_no_hard_links_the_claim_holds_and_nothing_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    find(tmp_path, 1)
    save(tmp_path, 1, 1)
    found = find(tmp_path, 2)
    assert found is not None and found.segment == 2 and found.folder.name == "step-00000001-1"
    with pytest.raises(Fenced, match="fenced by segment 2"):
        save(tmp_path, 2, 1)
    with pytest.raises(Fenced, match="another process runs as segment 2"):
        fence.claim(tmp_path, 2)
    assert save(tmp_path, 3, 2) == checkpoint.newest(tmp_path)


def test_what_a_later_segment_is_writing_is_not_cleared_and_what_it_published_not_pointed_at(tmp_path: Path) -> None:
    find(tmp_path, 1)
    early = save(tmp_path, 5, 1)
    find(tmp_path, 2)
    save(tmp_path, 3, 2)
    checkpoint.begin(checkpoint.partial_of(tmp_path, 6, 2), {"step": 6})
    checkpoint.begin(checkpoint.partial_of(tmp_path, 6, 1), {"step": 6})
    checkpoint.clear(tmp_path, 1)
    assert [path.name for path in tmp_path.glob("*.partial")] == ["step-00000006-2.partial"]
    assert pointer.point(tmp_path, early.folder, 2, 1) == ["step-00000005-1"]


def test_what_was_published_before_segments_were_counted_is_gone_on_from(tmp_path: Path) -> None:
    save(tmp_path, 4, 0)
    found = find(tmp_path, 1)
    assert found is not None and (found.step, found.segment, found.folder.name) == (4, 1, "step-00000004-1")
    save(tmp_path, 5, 1)
    save(tmp_path, 6, 1)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000005-1", "step-00000006-1"]
    assert (tmp_path / fence.POINTER).read_bytes() == (tmp_path / fence.pointer_of(1)).read_bytes()


def test_what_is_taken_up_costs_no_room_and_comes_with_its_form_for_another_width(tmp_path: Path) -> None:
    find(tmp_path, 1)
    before = save(tmp_path, 1, 1)
    shutil.copytree(before.folder, tmp_path / "step-00000001-1.universal")
    found = find(tmp_path, 2)
    assert found is not None
    assert os.path.samefile(before.folder / "rank-0.pt", found.folder / "rank-0.pt")
    assert checkpoint.sound(tmp_path / "step-00000001-2.universal") is not None
    save(tmp_path, 2, 2, keep=1)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002-2"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(target, "WAITS_S", (0.01, 0.01))
    yield


@pytest.mark.usefixtures("impatient")
def test_at_a_url_the_early_one_is_refused_and_what_it_sends_too_late_is_not_read(place: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    find(first, 1)
    send(Target(place), save(first, 1, 1), 2, segment=1)
    stale = save(first, 9, 1)
    brought = bring(second, [place], 2, segment=2)
    assert brought.found is not None and (brought.found.step, brought.found.segment) == (1, 2)
    with pytest.raises(Fenced, match="fenced by segment 2"):
        send(Target(place), stale, 2, segment=1)
    assert send(Target(place), brought.found, 2, segment=2).sent_bytes == 0, "it lies there"
    send(Target(place), save(second, 2, 2), 2, segment=2)
    # As if it had looked before the other claimed, and stalled until now: all it can write is under its own number.
    late = Target(place)
    late.write("step-00000009-1/manifest.json", (stale.folder / "manifest.json").read_bytes())
    late.write("step-00000009-1/rank-0.pt", (stale.folder / "rank-0.pt").read_bytes())
    late.write("step-00000009-1/meta.json", (stale.folder / "meta.json").read_bytes())
    late.write(fence.pointer_of(1), b'{"segment": 1, "published": ["step-00000009-1"]}')
    found = bring(tmp_path / "third", [place], 2, segment=3).found
    assert found is not None and (found.step, found.segment) == (2, 3)


@pytest.mark.usefixtures("impatient")
def test_in_another_zone_the_later_segment_wins_though_it_is_behind(place: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    find(here, 1)
    send(Target(place), save(here, 5, 1), 2, segment=1)
    assert bring(there, [place], 2, segment=2).found is not None
    save(there, 6, 2)
    save(here, 8, 1)  # its own folder is not the one that was claimed: it goes on until its time is over
    found = bring(here, [str(there)], 2, segment=3).found
    assert found is not None and (found.step, found.segment) == (6, 3)
