"""Bringing: the newest sound checkpoint comes whole from wherever it lies, or it is said why it cannot."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from jobs.checkpoints import checkpoint, resume, target
from jobs.checkpoints.bring import bring
from jobs.checkpoints.mirror import send
from jobs.checkpoints.target import Target
from jobs.place import Place
from jobs.spec import InputError, Unavailable
from tests.unit.jobs.checkpoints.shelves import contents, save


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "WAITS_S", (0.01, 0.01))


def put(place: str, folder: Path, *steps: int, keep: int = 2) -> None:
    """Leave checkpoints of these steps at `place`, as a mirror does; a plain folder gets them as they are."""
    for step in steps:
        if "://" in place:
            send(Target(place), save(folder, step), keep)
        else:
            save(Path(place), step, keep=keep)


def spoil(place: str, name: str, how: str = "changed") -> None:
    at = Target(place)
    content = at.read(name)
    assert content is not None
    if how == "missing":
        at.remove(name)
    else:
        at.write(name, content[:-1] if how == "shorter" else content[:-1] + bytes([content[-1] ^ 1]))


def test_a_newer_checkpoint_is_brought_over_whole(place: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    put(place, tmp_path / "there", 8)
    save(here, 4)
    brought = bring(here, [place], keep=2)
    assert brought.found == checkpoint.newest(here) and brought.found is not None and brought.found.step == 8
    there = tmp_path / "there" if "://" in place else Path(place)
    assert contents(brought.found.folder) == contents(there / "step-00000008")
    assert brought.moved_bytes == brought.found.size_bytes and brought.moved_from == place
    assert bring(here, [place], keep=2).moved_bytes == 0


@pytest.mark.parametrize("step", [3, 4])
def test_a_checkpoint_as_new_is_not_copied(place: str, tmp_path: Path, step: int) -> None:
    put(place, tmp_path / "there", step)
    here = tmp_path / "here"
    mine = save(here, 4)
    brought = bring(here, [place], keep=2)
    assert (brought.found, brought.moved_bytes, brought.moved_from) == (mine, 0, None)
    assert sorted(path.name for path in here.iterdir()) == ["published.json", "step-00000004"]


def test_a_place_where_nothing_was_ever_left_is_empty(place: str, tmp_path: Path) -> None:
    assert bring(tmp_path / "here", [place], keep=2).found is None


@pytest.mark.parametrize("how", ["changed", "shorter", "missing", "manifest"])
def test_a_damaged_one_gives_way_to_the_one_before(
    place: str, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(place, tmp_path / "there", 1, 2)
    spoil(
        place,
        "step-00000002/" + ("manifest.json" if how == "manifest" else "zero/rank-1.pt"),
        how.replace("manifest", "shorter"),
    )
    brought = bring(tmp_path / "here", [place], keep=2, start_step=2)
    assert brought.found is not None and brought.found.step == 1
    assert "step-00000002 is damaged" in capsys.readouterr().out


def test_a_torn_pointer_gives_way_to_the_manifests(place: str, tmp_path: Path) -> None:
    put(place, tmp_path / "there", 1, 2)
    Target(place).write("published.json", b'{"publ')
    brought = bring(tmp_path / "here", [place], keep=2)
    assert brought.found is not None and brought.found.step == 2


def test_the_newest_of_several_places_wins_wherever_it_lies(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), (tmp_path / "second").as_uri()
    put(first, tmp_path / "a", 3)
    put(second, tmp_path / "b", 7)
    brought = bring(tmp_path / "here", [first, second, str(tmp_path / "here")], keep=2)
    assert brought.found is not None and (brought.found.step, brought.moved_from) == (7, second)


def test_where_the_newest_is_damaged_the_next_best_of_another_place_is_taken(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    put(first, tmp_path / "a", 3)
    put(second, tmp_path / "b", 1, 7)
    spoil(second, "step-00000007/zero/rank-0.pt")
    brought = bring(tmp_path / "here", [second, first], keep=2)
    assert brought.found is not None and (brought.found.step, brought.moved_from) == (3, first)


def test_a_place_that_does_not_answer_is_named_where_it_may_hold_the_newest(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    here = tmp_path / "here"
    save(here, 4)
    with pytest.raises(Unavailable, match=rf"step 9 cannot be brought: {bucket}/job does not answer"):
        bring(here, [f"{bucket}/job"], keep=2, start_step=9)
    brought = bring(here, [f"{bucket}/job"], keep=2, start_step=4)
    assert brought.found is not None and brought.found.step == 4
    assert "going on from step 4" in capsys.readouterr().out


def test_a_place_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.3)
    there = tmp_path / "there"
    save(there, 4)
    victim = there / "step-00000004" / "zero" / "rank-0.pt"
    victim.unlink()
    os.mkfifo(victim)
    with pytest.raises(Unavailable, match=f"step 4 cannot be brought: {there} has not answered for 0.3 s"):
        bring(tmp_path / "here", [str(there)], keep=2, start_step=4)


def test_a_full_disk_here_is_no_damage_there(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    save(there, 4, size_bytes=200_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(Unavailable, match="here.*: File too large"):
            bring(here, [str(there)], keep=2, start_step=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.newest(here) is None
    found = bring(here, [str(there)], keep=2, start_step=4).found
    assert found is not None and found.step == 4


def test_a_kind_of_url_that_nothing_knows_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tide://x"):
        bring(tmp_path, ["tide://x"], keep=2)


def test_find_looks_at_every_place_that_the_order_names(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    put(str(there), tmp_path, 1, 2)
    put((tmp_path / "lost").as_uri(), tmp_path / "a", 3)
    put((tmp_path / "mirror").as_uri(), tmp_path / "b", 4)
    place = Place(0, 1, 0, "cpu", here, str(there), "s", also_at=((tmp_path / "lost").as_uri(),))
    steps = []
    for mirror in (None, (tmp_path / "mirror").as_uri()):
        brought = resume.find(Place(**{**place.__dict__, "mirror": mirror}), keep=2)
        steps.append(brought.found.step if brought.found else None)
    assert steps == [3, 4]


def test_names_in_a_manifest_cannot_leave_the_folder(tmp_path: Path) -> None:
    there = tmp_path / "there"
    folder = save(there, 1).folder
    (tmp_path / "out").write_bytes((folder / "zero" / "rank-0.pt").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../out"] = manifest["files"].pop("zero/rank-0.pt")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert bring(tmp_path / "here", [str(there)], keep=2).found is None
    assert not (tmp_path / "here" / "out").exists()
