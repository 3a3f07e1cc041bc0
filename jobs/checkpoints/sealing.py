"""A folder's files, sealed: flushed to disk, with sizes and checksums in a manifest beside them.
In: files that ranks wrote. Out: `Sealed` by path, manifests, and JSON files that are replaced whole.
`checkpoint` publishes what is sealed, and checks it before it is used.

Checksums are XXH3's of 128 bits, which `xxh128sum` prints. They find damage, which is all that a manifest beside its
files can find, and are as fast as memory; SHA-256 made 1.7 GB/s on one core, and was a third of what a save took.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import xxhash

from jobs.patience import Pulse, bounded, together, told_as

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
_Value = TypeVar("_Value")


class Checksum(Protocol):
    """One that is being made, of bytes in order."""

    def update(self, content: bytes | memoryview, /) -> object:
        """Go on with these bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far, as a manifest holds it."""


_KINDS: Mapping[str, Callable[[], Checksum]] = {"xxh128": xxhash.xxh3_128, "sha256": hashlib.sha256}
"""Checksums by the name that manifests give them; what is sealed has the first, checkpoints of before the second."""
_KIND = "xxh128"
_SLOWEST_BYTES_PER_S = 10e6
"""A disk that flushes more slowly than this counts as one that hangs."""


@dataclass(frozen=True)
class Sealed:
    """One file that is safely on disk: its size and checksum."""

    size_bytes: int
    checksum: str
    """In hex."""
    kind: str = _KIND

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Sealed:
        """One that a manifest lists; KeyError, TypeError or ValueError where it is no such thing."""
        kind = next((kind for kind in _KINDS if kind in about), _KIND)
        return cls(int(about["bytes"]), str(about[kind]), kind)

    def listed(self) -> dict[str, Any]:
        """As a manifest lists it."""
        return {"bytes": self.size_bytes, self.kind: self.checksum}


def seal(partial: Path, rank: int = 0, world_size: int = 1) -> dict[str, Sealed]:
    """Flush this rank's share of the files to disk and checksum them; the keys are paths within `partial`."""
    with told_as(str(partial)):
        return seal_files(partial, bounded(str(partial), lambda _pulse: files_in(partial)[rank::world_size]))


def seal_files(partial: Path, names: Iterable[str]) -> dict[str, Sealed]:
    """Flush these files of `partial` to disk and checksum them."""
    mine = list(names)
    with told_as(str(partial)):
        return dict(zip(mine, _flush_and_checksum(partial, mine), strict=True))


def unsealed(partial: Path, sealed: Mapping[str, Sealed]) -> list[str]:
    """The files of `partial` that nobody has sealed."""
    with told_as(str(partial)):
        return bounded(str(partial), lambda _pulse: sorted(set(files_in(partial)) - sealed.keys()))


def write_manifest(folder: Path, step: int, sealed: Mapping[str, Sealed]) -> None:
    """List the files of a checkpoint's folder with their sizes and checksums; without it the folder never counts."""
    files = {name: file.listed() for name, file in sorted(sealed.items())}
    write_atomically(folder / MANIFEST, {"step": step, "files": files})


def write_atomically(path: Path, content: Mapping[str, Any], mark: str = "") -> None:
    """Replace a JSON file so that a reader, or a crash, sees the old content or the new and nothing between.

    `mark` keeps writers of one file apart.
    """
    fresh = path.with_name(f"{path.name}{mark}.fresh")
    with fresh.open("w", encoding="utf-8") as out:
        json.dump(content, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_s(size_bytes: int) -> float:
    """How long a disk may take to flush so much."""
    return size_bytes / _SLOWEST_BYTES_PER_S


def manifest_of(folder: Path) -> dict[str, Sealed]:
    """The files of a checkpoint's folder as its manifest lists them; OSError, ValueError or KeyError without one."""
    files = read(folder / MANIFEST)["files"]
    return {name: Sealed.of(about) for name, about in files.items()}


def match(folder: Path, files: Mapping[str, Sealed]) -> bool:
    """Whether these files of a folder have the checksums that are told of them."""
    acts = [_on(functools.partial(_checksum, kind=file.kind), folder / name) for name, file in files.items()]
    return together(str(folder), acts) == [file.checksum for file in files.values()]


def files_in(folder: Path) -> list[str]:
    """Paths of all files within a folder, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _on(act: Callable[[Path, Pulse], _Value], path: Path) -> Callable[[Pulse], _Value]:
    return lambda pulse: act(path, pulse)


def _flush_and_checksum(partial: Path, names: list[str]) -> list[Sealed]:
    """The files, sealed, in order; the disk flushes while the processor reads."""
    paths = [partial / name for name in names]
    acts: list[Callable[[Pulse], Any]] = [_on(act, path) for path in paths for act in (_flush, _checksum)]
    done = together(str(partial), acts)
    return [Sealed(size_bytes, found) for size_bytes, found in zip(done[::2], done[1::2], strict=True)]


def _flush(path: Path, pulse: Pulse) -> int:
    size_bytes = path.stat().st_size
    with path.open("rb+") as file:
        pulse.beat(flush_s(size_bytes))
        os.fsync(file.fileno())
    return size_bytes


def _checksum(path: Path, pulse: Pulse, kind: str = _KIND) -> str:
    found = checksum(kind)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            pulse.beat()
            found.update(chunk)
    return found.hexdigest()


def checksum(kind: str = _KIND) -> Checksum:
    """That of nothing yet."""
    return _KINDS[kind]()


def size_of(files: Iterable[Sealed]) -> int:
    """Bytes of these files together."""
    return sum(file.size_bytes for file in files)


def read(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping; OSError or ValueError without one."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no mapping")
    return document
