"""Checkpoints: published whole or not at all, checked before use, brought over from another folder, kept in number."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import xxhash

from jobs.checkpoints import checkpoint, resume
from jobs.checkpoints.bring import bring
from jobs.spec import InputError, JobFault, JobSpec


def write(folder: Path, step: int) -> Path:
    """The files of two ranks, not sealed yet."""
    checkpoint.clear(folder)
    partial = checkpoint.partial_of(folder, step)
    partial.mkdir()
    checkpoint.write_atomically(partial / checkpoint.META, {"step": step, "essentials": {"workers.count": 2}})
    for rank in range(2):
        (partial / f"rank-{rank}.pt").write_bytes(bytes([step, rank]) * 1000)
    return partial


def save(folder: Path, step: int, keep: int = 2) -> checkpoint.Published:
    partial = write(folder, step)
    sealed = checkpoint.seal(partial, 0, 2) | checkpoint.seal(partial, 1, 2)
    return checkpoint.publish(folder, step, sealed, keep)


def newest_step(folder: Path) -> int | None:
    found = checkpoint.newest(folder)
    return None if found is None else found.step


def test_nothing_is_published_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


def test_what_was_published_is_found_with_its_meta_and_size(tmp_path: Path) -> None:
    assert save(tmp_path, 7) == checkpoint.newest(tmp_path)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, found.meta["step"], found.folder.name) == (7, 7, "step-00000007")
    assert found.size_bytes == sum(
        path.stat().st_size for path in found.folder.iterdir() if "manifest" not in path.name
    )


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published.json", "step-00000002", "step-00000003"]


def test_a_crash_while_saving_leaves_the_last_published_in_force(tmp_path: Path) -> None:
    save(tmp_path, 1)
    write(tmp_path, 2)
    assert newest_step(tmp_path) == 1
    checkpoint.clear(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_a_crash_between_the_rename_and_the_pointer_leaves_the_last_published_in_force(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = (tmp_path / checkpoint.POINTER).read_bytes()
    save(tmp_path, 2)
    (tmp_path / checkpoint.POINTER).write_bytes(before)
    assert newest_step(tmp_path) == 1
    save(tmp_path, 2)
    assert newest_step(tmp_path) == 2


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "manifest"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 2).folder
    victim = folder / ("manifest.json" if damage == "manifest" else "rank-1.pt")
    if damage == "missing":
        victim.unlink()
    else:
        content = victim.read_bytes()
        victim.write_bytes(content[:-1] if damage != "changed" else content[:-1] + b"\xff")
    assert newest_step(tmp_path) == 1
    save(tmp_path, 3)
    assert newest_step(tmp_path) == 3


def test_any_bit_of_a_manifest_that_flips_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    victim = save(tmp_path, 2).folder / checkpoint.MANIFEST
    content = victim.read_bytes()
    for at in range(len(content)):
        victim.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found = checkpoint.newest(tmp_path)
        assert found is not None and found.folder.name == f"step-{found.step:08d}", content[at - 9 : at + 9]


def test_a_torn_pointer_gives_way_to_the_manifests(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / checkpoint.POINTER).write_text('{"publ')
    assert newest_step(tmp_path) == 2


def test_training_on_from_an_older_checkpoint_drops_the_newer_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 9).folder / "rank-0.pt").unlink()
    save(tmp_path, 5)
    assert newest_step(tmp_path) == 5
    assert not (tmp_path / "step-00000009").exists()


def test_a_file_that_no_rank_sealed_is_never_published(tmp_path: Path) -> None:
    partial = write(tmp_path, 1)
    with pytest.raises(JobFault, match="was never sealed"):
        checkpoint.publish(tmp_path, 1, checkpoint.seal(partial, 0, 2), 2)
    assert checkpoint.newest(tmp_path) is None


def test_a_manifest_lists_each_file_with_its_size_and_the_checksum_that_xxh128sum_prints(tmp_path: Path) -> None:
    folder = save(tmp_path, 1).folder
    files = json.loads((folder / checkpoint.MANIFEST).read_text())["files"]
    assert sorted(files) == ["meta.json", "rank-0.pt", "rank-1.pt"]
    for name, about in files.items():
        content = (folder / name).read_bytes()
        assert about == {"bytes": len(content), "xxh128": xxhash.xxh128_hexdigest(content)}


def test_a_checkpoint_of_before_is_checked_by_its_sha256_here_and_where_it_is_brought(tmp_path: Path) -> None:
    folder = save(tmp_path / "old", 1).folder
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    for name, about in manifest["files"].items():
        del about["xxh128"]
        about["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    for place in ("new", "newer"):  # what was brought once is as it was
        found = bring(tmp_path / place, [str(tmp_path / ("old" if place == "new" else "new"))], keep=1).found
        assert found is not None and found.step == 1
        assert json.loads((found.folder / checkpoint.MANIFEST).read_text()) == manifest
    (folder / "rank-0.pt").write_bytes((folder / "rank-0.pt").read_bytes()[::-1])
    assert checkpoint.newest(tmp_path / "old") is None


def spec_with(**changes: object) -> JobSpec:
    document: dict[str, object] = {
        "name": "job",
        "job": "train",
        "model": {"config": {"model_type": "llama"}},
        "data": {"files": ["a"]},
        "training": {"steps": 10, "batch_size": 8},
        "deepspeed": {"zero_optimization": {"stage": 2}},
    }
    return JobSpec.model_validate(document | changes)


@pytest.mark.parametrize(
    ("changes", "workers", "digest", "message"),
    [
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, 2, "d", "deepspeed.zero_optimization.stage: 3 was 2"),
        ({}, 2, "other", "data.files: the text differs"),
        ({"training": {"steps": 10, "batch_size": 16}}, 2, "d", "training.batch_size: 16 was 8"),
    ],
)
def test_a_changed_job_is_refused_with_the_field(
    tmp_path: Path, changes: dict[str, object], workers: int, digest: str, message: str
) -> None:
    meta = {"essentials": resume.essentials(spec_with(), 2, "d")}
    found = checkpoint.Published(tmp_path / "step-00000001", 1, meta, 0)
    with pytest.raises(InputError) as caught:
        resume.fits(resume.essentials(spec_with(**changes), workers, digest), found)
    assert message in str(caught.value)


def test_another_width_may_go_on_from_a_checkpoint_and_is_told(tmp_path: Path) -> None:
    found = checkpoint.Published(tmp_path, 1, {"essentials": resume.essentials(spec_with(), 2, "d")}, 0)
    for workers in (1, 2, 4):
        now = resume.essentials(spec_with(), workers, "d")
        resume.fits(now, found)
        assert resume.is_resize(now, found) == (workers != 2)


def test_a_universal_form_goes_when_the_next_checkpoint_is_published(tmp_path: Path) -> None:
    folder = save(tmp_path, 1).folder
    folder.with_name(folder.name + ".universal").mkdir()
    assert newest_step(tmp_path) == 1
    save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published.json", "step-00000001", "step-00000002"]


def test_more_steps_and_another_learning_rate_may_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    found = checkpoint.Published(tmp_path, 1, {"essentials": resume.essentials(spec_with(), 2, "d")}, 0)
    changed = spec_with(training={"steps": 20, "batch_size": 8, "learning_rate": 1e-5})
    resume.fits(resume.essentials(changed, 2, "d"), found)
