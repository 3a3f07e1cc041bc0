"""A working folder as one file: the same content again elsewhere, without what is ignored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.spec import InputError, Unavailable, code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "train.py": "print(1)\n",
        ".gitignore": "*.ckpt\n/data/\n",
        "model.ckpt": "weights",
        "data/big.bin": "x",
        "src/data/small.py": "y = 1\n",
        "src/.gitignore": "scratch.py\n!kept.ckpt\n",
        "src/scratch.py": "",
        "scratch.py": "",
        ".git/config": "",
        "src/__pycache__/a.pyc": "",
    }
    for name, text in files.items():
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "work" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "work" / "run.sh").chmod(0o755)
    (tmp_path / "work" / "link.py").symlink_to("train.py")
    return tmp_path / "work"


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_what_is_unpacked_is_what_was_packed_without_what_is_ignored(folder: Path, tmp_path: Path) -> None:
    code.unpack(code.pack(folder, tmp_path / "code"), tmp_path / "there")
    kept = {".gitignore", "train.py", "scratch.py", "run.sh", "link.py", "src/.gitignore", "src/data/small.py"}
    assert names(tmp_path / "there") == kept
    assert (tmp_path / "there" / "train.py").read_text() == "print(1)\n"
    assert os.access(tmp_path / "there" / "run.sh", os.X_OK)
    assert (tmp_path / "there" / "link.py").is_symlink()


def test_a_later_edit_changes_the_archive_and_not_the_one_before(folder: Path, tmp_path: Path) -> None:
    first = code.pack(folder, tmp_path / "code")
    os.utime(folder / "train.py", (0, 0))
    assert code.pack(folder, tmp_path / "code") == first
    (folder / "train.py").write_text("print(2)\n")
    second = code.pack(folder, tmp_path / "code")
    assert second != first
    code.unpack(first, tmp_path / "there")
    assert (tmp_path / "there" / "train.py").read_text() == "print(1)\n"
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == sorted([first.name, second.name])


def test_unpacking_twice_and_placing_twice_changes_nothing(folder: Path, tmp_path: Path) -> None:
    archive = code.pack(folder, tmp_path / "code")
    for _ in range(2):
        code.place(archive, tmp_path / "zone" / "code.tar.gz")
        code.unpack(tmp_path / "zone" / "code.tar.gz", tmp_path / "there")
    assert [path.name for path in (tmp_path / "zone").iterdir()] == ["code.tar.gz"]
    assert "train.py" in names(tmp_path / "there")


def test_a_folder_that_is_too_large_or_none_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="working_dir: .*/nowhere is no folder"):
        code.pack(tmp_path / "nowhere", tmp_path / "code")
    monkeypatch.setattr(code, "LIMIT_BYTES", 10)
    with pytest.raises(InputError, match="name what may stay out in its .gitignore, or use script.folder"):
        code.pack(folder, tmp_path / "code")


def test_a_copy_on_a_disk_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a pipe that has no other end waits for ever, as on a file server that is gone."""
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.2)
    os.mkfifo(tmp_path / "code.tar.gz")
    with pytest.raises(Unavailable, match=r"working_dir: its copy .*code.tar.gz.* has not answered for 0.2 s"):
        code.unpack(tmp_path / "code.tar.gz", tmp_path / "there" / "code")
    assert not (tmp_path / "there" / "code").exists()


def test_a_disk_that_does_not_take_the_copy_is_not_the_jobs_fault(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = code.pack(folder, tmp_path / "code")

    def full(*_given: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tarfile.TarFile.extractall", full)
    with pytest.raises(Unavailable, match=r"working_dir: its copy .*tar.gz.*: No space left on device"):
        code.unpack(archive, tmp_path / "there" / "code")
    assert list((tmp_path / "there").iterdir()) == [], "nothing is left of it"
