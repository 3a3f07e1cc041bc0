"""Tokens: a tokenizer by name, and the one array that all text becomes, kept on disk.
In: documents and `data.tokenizer`. Out: a read-only memory map of tokens and the digest of its content.
Next, jobs.data cuts the array into samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.checkpoints.checkpoint import flush_s
from jobs.patience import Beat, Pulse, bounded, is_outside, told_as
from jobs.spec import InputError, Unavailable
from jobs.text import documents, files_of

FORMAT = 1
"""Part of the cache's key: raise it where the same text would give other tokens."""

_CHUNK_BYTES = 8 << 20
_GROUP_CHARS = 1 << 18

Array = NDArray[np.unsignedinteger[Any]]


class Tokenizer(Protocol):
    """Text in, token ids out. `end_id` closes each document, None where the vocabulary has no such token."""

    vocab_size: int
    end_id: int | None

    def encode(self, text: str) -> Sequence[int] | NDArray[np.uint8]:
        """The tokens of one document, without special ones."""


class Bytes:
    """UTF-8 bytes as tokens: 0 to 255 are the bytes, 256 ends a document, so the vocabulary holds 257."""

    vocab_size = 257
    end_id: int | None = 256

    def encode(self, text: str) -> NDArray[np.uint8]:
        """The bytes of `text`."""
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


class Pretrained:
    """A tokenizer that transformers reads from a folder or hub id; its eos token ends a document."""

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError) as fault:
            if is_outside(fault):
                raise
            reason = (str(fault).splitlines() or [""])[0]
            raise InputError(
                f"data.tokenizer: {name!r} is not bytes, a tokenizer's folder or a hub id ({reason})"
            ) from None
        self.vocab_size = len(self._tokenizer)
        self.end_id: int | None = self._tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, without special ones."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write the tokenizer beside a finished model."""
        self._tokenizer.save_pretrained(folder)


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer called `bytes`, or the one in a folder or at a hub id."""
    return Bytes() if name == "bytes" else Pretrained(name)


@dataclass(frozen=True)
class Tokens:
    """All tokens of a job in order. `digest` is of their content, the same wherever the text was tokenised."""

    array: Array
    vocab_size: int
    end_id: int | None
    digest: str


def prepare(patterns: Sequence[str], name: str, folder: Path) -> str:
    """Tokenise into `folder` unless it holds these tokens already; returns the key that `load` takes.

    The key covers the files' names, sizes and modification times and the tokenizer, so that a resume reads no text.
    Unavailable where a disk is full, gone or silent.
    """

    def act(pulse: Pulse) -> str:
        files = files_of(patterns, pulse.beat)
        key = _key(files, name, pulse.beat)
        if not (folder / f"{key}.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _write(files, tokenizer(name), folder, key, pulse)
        return key

    try:
        return bounded(f"{folder}, or a disk with data.files,", act)
    except OSError as fault:
        if is_outside(fault):
            raise Unavailable(f"{fault.filename or folder}: {fault.strerror or fault}") from fault
        raise


def load(folder: Path, key: str) -> Tokens:
    """The tokens that `prepare` wrote, mapped rather than read. Unavailable where the disk is gone or silent."""

    def act(pulse: Pulse) -> Tokens:
        about = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        pulse.beat()
        array = np.memmap(folder / f"{key}.bin", dtype=about["dtype"], mode="r")
        return Tokens(array, about["vocab_size"], about["end_id"], about["digest"])

    with told_as(str(folder)):
        return bounded(str(folder), act)


def _key(files: Iterable[Path], name: str, beat: Beat) -> str:
    marks: list[Any] = [FORMAT, name]
    folder = Path(name)
    parts = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    for path in [*parts, *files]:
        beat()
        state = path.stat()
        marks.append([str(path), state.st_size, state.st_mtime_ns])
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32]


def _gathered(texts: Iterable[str]) -> Iterator[list[str]]:
    """Documents in groups, so that there is little to do for each group."""
    group, size = list[str](), 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _GROUP_CHARS:
            yield group
            group, size = [], 0
    yield group


def _write(files: Iterable[Path], encoder: Tokenizer, folder: Path, key: str, pulse: Pulse) -> None:
    """Write `<key>.bin`, then `<key>.json`: the second makes the first valid, so a crash between leaves no cache."""
    dtype = np.min_scalar_type(encoder.vocab_size - 1)
    end = [] if encoder.end_id is None else [encoder.end_id]
    digest = hashlib.sha256()
    partial = folder / f"{key}.{os.getpid()}.partial"
    with partial.open("wb") as out:
        for path in files:
            for texts in _gathered(documents(path, pulse.beat)):
                with pulse.computing():
                    pieces = [part for text in texts for part in (encoder.encode(text), end)]
                    piece = b"".join(np.asarray(part, dtype=dtype).tobytes() for part in pieces)
                    digest.update(piece)
                for start in range(0, len(piece), _CHUNK_BYTES):
                    pulse.beat()
                    out.write(piece[start : start + _CHUNK_BYTES])
        size_bytes = out.tell()
        out.flush()
        pulse.beat(flush_s(size_bytes))
        os.fsync(out.fileno())
    pulse.beat()
    if size_bytes == 0:
        partial.unlink()
        raise InputError("data.files: the files hold no text; name files that do")
    partial.rename(folder / f"{key}.bin")
    about = {
        "dtype": str(dtype),
        "vocab_size": encoder.vocab_size,
        "end_id": encoder.end_id,
        "digest": digest.hexdigest(),
    }
    partial.write_text(json.dumps(about), encoding="utf-8")
    partial.rename(folder / f"{key}.json")
