"""Saving through DeepSpeed's writer: what the disk says is kept until all ranks can hear it; other faults are not."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.saving import Saving
from jobs.spec import Unavailable


class Writer:
    """As DeepSpeed's own, with the zip format or the one before it."""

    name = "writer"

    def __init__(self, zipped: bool = True) -> None:
        self._zipped = zipped

    def save(self, state: Any, path: str) -> None:
        torch.save(state, path, _use_new_zipfile_serialization=self._zipped)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        os.makedirs(path, exist_ok=exist_ok)


@contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """No file may grow larger: a disk that is full, for one process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_full_disk_is_told_once_all_is_tried_and_then_it_is_as_new(tmp_path: Path, zipped: bool) -> None:
    saving = Saving(Writer(zipped))
    state = {"weights": torch.arange(50_000)}
    with at_most(10_000):
        saving.save(state, str(tmp_path / "a.pt"))
        saving.save({}, str(tmp_path / "b.pt"))
    assert not (tmp_path / "b.pt").exists(), "after a fault nothing more is written"
    with pytest.raises(Unavailable, match="a.pt: (File too large|the disk takes no more)"):
        saving.check()
    saving.check()
    saving.save(state, str(tmp_path / "a.pt"))
    saving.check()
    assert torch.equal(torch.load(tmp_path / "a.pt")["weights"], state["weights"])


def test_a_disk_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.3)
    os.mkfifo(tmp_path / "a.pt")
    saving = Saving(Writer(zipped=False))
    saving.save({}, str(tmp_path / "a.pt"))
    with pytest.raises(Unavailable, match="a.pt has not answered for 0.3 s"):
        saving.check()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    saving = Saving(Writer())
    (tmp_path / "file").touch()
    saving.makedirs(str(tmp_path / "file" / "folder"))
    with pytest.raises(Unavailable, match="Not a directory"):
        saving.check()


def test_a_fault_of_the_job_is_raised_where_it_is_and_all_else_is_the_writers(tmp_path: Path) -> None:
    saving = Saving(Writer())
    with pytest.raises(AttributeError, match="lambda"):
        saving.save({"a": lambda: 1}, str(tmp_path / "a.pt"))
    saving.check()
    assert saving.name == "writer"
