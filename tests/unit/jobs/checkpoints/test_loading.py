"""Loading: the same content as ever, given up where a file says nothing, and torch.load as it was afterwards."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from jobs import patience
from jobs.checkpoints.loading import patiently
from jobs.spec import Unavailable


@pytest.mark.parametrize("mapped", [False, True])
def test_it_loads_what_torch_loads(tmp_path: Path, mapped: bool) -> None:
    usual, numbers = torch.load, torch.arange(3 << 20)
    torch.save({"a": numbers, "b": [torch.ones(2), "x"]}, tmp_path / "a.pt")
    with patiently(tmp_path):
        found = torch.load(tmp_path / "a.pt", map_location="cpu", mmap=mapped, weights_only=False)
        with (tmp_path / "a.pt").open("rb") as file:
            again = torch.load(file)
    assert torch.load is usual
    assert torch.equal(found["a"], numbers) and found["b"][1] == "x"
    assert torch.equal(again["a"], numbers)


def test_a_large_file_comes_in_pieces_that_each_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_READ_BYTES", 1 << 18)
    torch.save(torch.zeros(1 << 20), tmp_path / "a.pt")
    beats: list[None] = []
    with patience.reading(tmp_path / "a.pt", lambda: beats.append(None)) as file:
        torch.load(file)
    assert len(beats) >= 16


def test_a_file_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a pipe that has no other end waits for ever, as on a file server that is gone."""
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.2)
    usual = torch.load
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(Unavailable, match=f"{tmp_path} has not answered for 0.2 s"), patiently(tmp_path):
        torch.load(tmp_path / "a.pt", map_location="cpu", weights_only=False)
    assert torch.load is usual


def test_what_a_disk_says_is_told_and_what_is_missing_or_torn_is_not_its_fault(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"{tmp_path}: Stale file handle"), patiently(tmp_path):
        raise OSError(116, "Stale file handle")
    with pytest.raises(FileNotFoundError), patiently(tmp_path):
        torch.load(tmp_path / "none.pt", weights_only=False)
    (tmp_path / "torn.pt").write_bytes(b"torn")
    with pytest.raises(pickle.UnpicklingError), patiently(tmp_path):
        torch.load(tmp_path / "torn.pt", weights_only=False)
