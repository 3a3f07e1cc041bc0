"""Checkpoints on disk: complete and checksummed before they count, published by one pointer that moves atomically.
In: a folder that all ranks filled. Out: `Published` checkpoints, the newest sound one first; older ones removed.
Next, jobs.state loads one into the engine. Nothing here needs torch.

    <checkpoints>/published.json           the pointer: {"published": ["step-00000120", "step-00000080"]}, newest first
    <checkpoints>/step-00000120/           DeepSpeed's files, meta.json, manifest.json
    <checkpoints>/step-00000160.partial/   being written, or left by a crash: never read
    <checkpoints>/step-00000120.universal/ the same for another width (jobs.universal), until the next is published
    <checkpoints>/data/                    tokens, kept so that a resume reads no text
    <checkpoints>/final/                   the finished model and its metrics

Checksums are SHA-256: CPUs assist it (1.7 GB/s on one core, blake2b 1.1), and `sha256sum` can check a folder by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jobs.patience import Beat, Pulse, bounded, together, told_as
from jobs.spec import JobFault, Unavailable

MANIFEST = "manifest.json"
META = "meta.json"
POINTER = "published.json"
_CHUNK_BYTES = 1 << 20
_Value = TypeVar("_Value")
_SLOWEST_BYTES_PER_S = 10e6
"""A disk that flushes more slowly than this counts as one that hangs."""


@dataclass(frozen=True)
class Published:
    """A checkpoint that was published and whose files are as they were written."""

    folder: Path
    step: int
    meta: Mapping[str, Any]
    size_bytes: int


@dataclass(frozen=True)
class Sealed:
    """One file that is safely on disk: its size and SHA-256."""

    size_bytes: int
    sha256: str


def name_of(step: int) -> str:
    """The folder's name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def partial_of(folder: Path, step: int) -> Path:
    """Where the ranks write the checkpoint of `step` before it is published."""
    return folder / f"{name_of(step)}.partial"


def clear(folder: Path) -> None:
    """Remove the partial folders and files that a crash left. Call it on one rank, before the others write."""

    def act(pulse: Pulse) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob("*.partial"), *folder.glob("data/*.partial")]:
            pulse.beat()
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()

    with told_as(str(folder)):
        bounded(str(folder), act)


def make_room(folder: Path, needed_bytes: int) -> None:
    """Unavailable where the disk of `folder` has less free than a checkpoint needs, before anyone writes to it."""
    free_bytes = bounded(str(folder), lambda _pulse: shutil.disk_usage(folder).free)
    if free_bytes < needed_bytes:
        free = f"{free_bytes / 1e6:.1f} MB are free"
        raise Unavailable(f"{folder}: a checkpoint needs {needed_bytes / 1e6:.1f} MB and {free}; make room")


def begin(partial: Path, meta: Mapping[str, Any]) -> None:
    """Make the folder that the ranks write a checkpoint to. Call it on one rank, after `clear`; it seals META, too."""

    def act(pulse: Pulse) -> None:
        partial.mkdir()
        pulse.beat()
        (partial / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")

    with told_as(str(partial)):
        bounded(str(partial), act)


def seal(partial: Path, rank: int = 0, world_size: int = 1) -> dict[str, Sealed]:
    """Flush this rank's share of the files to disk and checksum them; the keys are paths within `partial`."""
    with told_as(str(partial)):
        return seal_files(partial, bounded(str(partial), lambda _pulse: _files(partial)[rank::world_size]))


def seal_files(partial: Path, names: Iterable[str]) -> dict[str, Sealed]:
    """Flush these files of `partial` to disk and checksum them."""
    mine = list(names)
    with told_as(str(partial)):
        return dict(zip(mine, _flush_and_digest(partial, mine), strict=True))


def unsealed(partial: Path, sealed: Mapping[str, Sealed]) -> list[str]:
    """The files of `partial` that nobody has sealed."""
    with told_as(str(partial)):
        return bounded(str(partial), lambda _pulse: sorted(set(_files(partial)) - sealed.keys()))


def publish(
    folder: Path,
    step: int,
    sealed: Mapping[str, Sealed],
    keep: int,
    held: Collection[str] = (),
    prunes: bool = True,
) -> Published:
    """Give the sealed partial of `step` its name, move the pointer, remove all but the newest `keep` and those `held`.

    Without `prunes` that is left to `prune`. A crash before the pointer has moved leaves the checkpoint before it in
    force. JobFault where the files of the partial are not those that were sealed, Unavailable where the disk is full or
    hangs.
    """
    with told_as(str(folder)):
        published = bounded(str(folder), lambda pulse: _publish(folder, step, sealed, keep, pulse.beat))
    if prunes:
        prune(folder, held)
    return published


def prune(folder: Path, held: Collection[str] = ()) -> None:
    """Remove what the pointer does not name, but for what is `held`. Unavailable where the disk hangs."""

    def act(_pulse: Pulse) -> None:
        names = named_in((folder / POINTER).read_bytes())
        if names:
            _prune(folder, {*names, *held})

    with told_as(str(folder)):
        bounded(str(folder), act)


def _publish(folder: Path, step: int, sealed: Mapping[str, Sealed], keep: int, beat: Beat) -> Published:
    partial = partial_of(folder, step)
    odd = sorted(set(_files(partial)) ^ sealed.keys())
    if odd:
        said = "is not there" if odd[0] in sealed else "was never sealed"
        raise JobFault(f"{partial}: {odd[0]} {said}; do the workers share the checkpoints folder?")
    write_manifest(partial, step, sealed)
    target = folder / name_of(step)
    beat()
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    sync_folder(folder)
    beat()
    names = [target.name, *(name for name in _pointed(folder) if name != target.name)]
    names = sorted((name for name in names if name <= target.name), reverse=True)[:keep]
    write_atomically(folder / POINTER, {"published": names})
    return Published(target, step, _read(target / META), _size(sealed.values()))


def newest(folder: Path) -> Published | None:
    """The newest published checkpoint whose files match its manifest; an older one where that is torn; else None."""
    for name in bounded(str(folder), lambda _pulse: _pointed(folder)):
        found = sound(folder / name)
        if found is not None:
            return found
    return None


def write_manifest(folder: Path, step: int, sealed: Mapping[str, Sealed]) -> None:
    """List the files of a checkpoint's folder with their sizes and checksums; without it the folder never counts."""
    files = {name: {"bytes": file.size_bytes, "sha256": file.sha256} for name, file in sorted(sealed.items())}
    write_atomically(folder / MANIFEST, {"step": step, "files": files})


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file so that a reader, or a crash, sees the old content or the new and nothing between."""
    fresh = path.with_name(path.name + ".fresh")
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


def _pointed(folder: Path) -> list[str]:
    """Names that the pointer lists, newest first; where it cannot be read, every folder that has a manifest."""
    pointer = folder / POINTER
    if not pointer.exists():
        return []
    found = named_in(pointer.read_bytes())
    return found or sorted((path.parent.name for path in folder.glob(f"step-????????/{MANIFEST}")), reverse=True)


def named_in(pointer: bytes | None) -> list[str]:
    """The names that a pointer's content lists, newest first; empty where it is none or torn."""
    try:
        return [str(name) for name in json.loads(pointer or b"")["published"]]
    except (ValueError, KeyError, TypeError):
        return []


def is_name(name: str) -> bool:
    """Whether a folder of this name is a checkpoint's."""
    return re.fullmatch(r"step-\d{8,}", name) is not None


def flush_s(size_bytes: int) -> float:
    """How long a disk may take to flush so much."""
    return size_bytes / _SLOWEST_BYTES_PER_S


def sound(folder: Path) -> Published | None:
    """The checkpoint in `folder`, or None where a file is missing, torn or changed."""

    def read(_pulse: Pulse) -> tuple[int, dict[str, Any], dict[str, Sealed]] | None:
        manifest = manifest_of(folder)
        if any((folder / name).stat().st_size != file.size_bytes for name, file in manifest.items()):
            return None
        return _read(folder / MANIFEST)["step"], _read(folder / META), manifest

    try:
        about = bounded(str(folder), read)
        if about is None:
            return None
        step, meta, manifest = about
        digests = together(str(folder), [_on(_sha256, folder / name) for name in manifest])
        # The manifest has no checksum of its own; its step is also in the meta, which it lists.
        if digests != [file.sha256 for file in manifest.values()] or meta.get("step", step) != step:
            return None
        return Published(folder, step, meta, _size(manifest.values()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def manifest_of(folder: Path) -> dict[str, Sealed]:
    """The files of a checkpoint's folder as its manifest lists them; OSError, ValueError or KeyError without one."""
    files = _read(folder / MANIFEST)["files"]
    return {name: Sealed(int(file["bytes"]), str(file["sha256"])) for name, file in files.items()}


def _prune(folder: Path, keep: set[str]) -> None:
    for path in [*folder.glob("step-????????"), *folder.glob("step-????????.universal")]:
        if path.name not in keep:
            shutil.rmtree(path)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _on(act: Callable[[Path, Pulse], _Value], path: Path) -> Callable[[Pulse], _Value]:
    return lambda pulse: act(path, pulse)


def _flush_and_digest(partial: Path, names: list[str]) -> list[Sealed]:
    """The files, sealed, in order; the disk flushes while the processor reads."""
    paths = [partial / name for name in names]
    acts: list[Callable[[Pulse], Any]] = [_on(act, path) for path in paths for act in (_flush, _sha256)]
    done = together(str(partial), acts)
    return [Sealed(size_bytes, digest) for size_bytes, digest in zip(done[::2], done[1::2], strict=True)]


def _flush(path: Path, pulse: Pulse) -> int:
    size_bytes = path.stat().st_size
    with path.open("rb+") as file:
        pulse.beat(flush_s(size_bytes))
        os.fsync(file.fileno())
    return size_bytes


def _sha256(path: Path, pulse: Pulse) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            pulse.beat()
            digest.update(chunk)
    return digest.hexdigest()


def _size(files: Iterable[Sealed]) -> int:
    return sum(file.size_bytes for file in files)


def _read(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no mapping")
    return document
