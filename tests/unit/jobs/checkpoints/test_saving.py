"""Saving: files as torch reads them, sealed by what was in memory; what the disk says is told; abandoned, it ends."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
import xxhash

from jobs.checkpoints import saving
from jobs.checkpoints.checkpoint import Sealed
from jobs.checkpoints.stream import Stream
from jobs.patience import GivenUp
from jobs.spec import Unavailable


@contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """No file may grow larger: a disk that is full, for one process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def state() -> dict[str, Any]:
    """Tensors smaller and larger than a chunk, that share memory, of several types; and what is no tensor."""
    flat = torch.arange(6_000_000, dtype=torch.float32)
    return {
        "module": {"a": flat[:1000].view(10, 100), "b": flat[1000:]},
        "half": torch.ones(300_001, dtype=torch.bfloat16),
        "many": [torch.full((7,), n) for n in range(200)],
        "none": torch.empty(0),
        "step": 3,
    }


def on_disk(path: Path) -> Sealed:
    content = path.read_bytes()
    return Sealed(len(content), xxhash.xxh128_hexdigest(content))


def test_files_are_sealed_by_what_lies_there_and_torch_reads_what_was_held(tmp_path: Path) -> None:
    paths = [tmp_path / "step" / name for name in ("a.pt", "b.pt")]
    sealed = saving.write([(state(), path) for path in paths], Event())
    assert sealed == {path: on_disk(path) for path in paths}
    read, held = torch.load(paths[0]), state()
    assert all(torch.equal(read["module"][name], held["module"][name]) for name in "ab")
    assert read["module"]["a"].untyped_storage().data_ptr() == read["module"]["b"].untyped_storage().data_ptr()
    assert torch.equal(read["half"], held["half"])
    assert all(torch.equal(left, right) for left, right in zip(read["many"], held["many"], strict=True))
    assert (read["none"].numel(), read["step"]) == (0, 3)


def test_a_file_that_lay_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(bytes(1_000_000))
    assert saving.write([({}, path)], Event()) == {path: on_disk(path)}
    assert torch.load(path) == {}


@pytest.mark.parametrize("size", [1, (1 << 18) - 1, 1 << 18, (8 << 20) + 1, 20 << 20])
def test_a_stream_seals_pieces_of_every_size_in_their_order(tmp_path: Path, size: int) -> None:
    pieces: list[bytes | memoryview] = [os.urandom(size), b"", os.urandom(5), memoryview(os.urandom(size))]
    with Stream(tmp_path / "file", lambda: None, lambda _s: None) as stream:
        assert [stream.write(piece) for piece in pieces] == [len(piece) for piece in pieces]
        sealed = stream.seal()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert sealed == on_disk(tmp_path / "file")


@pytest.mark.parametrize("room_bytes", [0, 100, 10_000, 20_000_000])
def test_a_full_disk_is_told_wherever_it_ends_and_then_it_is_as_new(tmp_path: Path, room_bytes: int) -> None:
    path = tmp_path / "a.pt"
    with at_most(room_bytes), pytest.raises(Unavailable, match="a.pt: File too large"):
        saving.write([(state(), path)], Event())
    assert saving.write([(state(), path)], Event()) == {path: on_disk(path)}


def test_a_disk_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.3)
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(Unavailable, match="has not answered for 0.3 s"):
        saving.write([({}, tmp_path / "a.pt")], Event())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"a\.pt: (Not a directory|File exists)"):
        saving.write([({}, tmp_path / "file" / "folder" / "a.pt")], Event())


def test_a_fault_of_the_job_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="lambda"):
        saving.write([({"a": lambda: 1}, tmp_path / "a.pt")], Event())


def test_what_nobody_wants_any_more_ends_at_the_next_chunk(tmp_path: Path) -> None:
    over = Event()

    class Interrupting:
        """Something whose pickling tells that the checkpoint is abandoned: the tensors come after it."""

        def __reduce__(self) -> Any:
            over.set()
            return str, ()

    path = tmp_path / "a.pt"
    with pytest.raises(GivenUp):
        saving.write([({"first": Interrupting(), **state()}, path)], over)
    assert path.stat().st_size < 1000
