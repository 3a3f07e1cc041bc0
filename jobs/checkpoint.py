"""Checkpoints on disk: complete and checksummed before they count, published by one pointer that moves atomically.
In: a folder that all ranks filled. Out: `Published` checkpoints, the newest sound one first; older ones removed.
Next, jobs.state loads one into the engine. Nothing here needs torch.

    <checkpoints>/published.json           the pointer: {"published": ["step-00000120", "step-00000080"]}, newest first
    <checkpoints>/step-00000120/           DeepSpeed's files, rng-rank-00000.pt, meta.json, manifest.json
    <checkpoints>/step-00000160.partial/   being written, or left by a crash: never read
    <checkpoints>/data/                    tokens, kept so that a resume reads no text
    <checkpoints>/final/                   the finished model and its metrics

Checksums are SHA-256: CPUs assist it (1.7 GB/s on one core, blake2b 1.1), and `sha256sum` can check a folder by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.spec import JobFault

MANIFEST = "manifest.json"
META = "meta.json"
POINTER = "published.json"
_CHUNK_BYTES = 1 << 20


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
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("*.partial"), *folder.glob("data/*.partial")]:
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()


def seal(partial: Path, rank: int = 0, world_size: int = 1) -> dict[str, Sealed]:
    """Flush this rank's share of the files to disk and checksum them; the keys are paths within `partial`."""
    mine = _files(partial)[rank::world_size]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(mine, pool.map(lambda name: _seal_file(partial / name), mine), strict=True))


def publish(folder: Path, step: int, sealed: Mapping[str, Sealed], keep: int) -> Published:
    """Give the sealed partial of `step` its name, move the pointer, remove all but the newest `keep`.

    A crash before the pointer has moved leaves the checkpoint before it in force. JobFault where a file of the partial
    is not sealed.
    """
    partial = partial_of(folder, step)
    unsealed = sorted(set(_files(partial)) - sealed.keys())
    if unsealed:
        raise JobFault(f"{partial}: {unsealed[0]} was never sealed; do the workers share the checkpoints folder?")
    manifest = {name: {"bytes": file.size_bytes, "sha256": file.sha256} for name, file in sorted(sealed.items())}
    write_atomically(partial / MANIFEST, {"step": step, "files": manifest})
    target = folder / name_of(step)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    sync_folder(folder)
    names = [target.name, *(name for name in _pointed(folder) if name != target.name)]
    names = sorted((name for name in names if name <= target.name), reverse=True)[:keep]
    write_atomically(folder / POINTER, {"published": names})
    _prune(folder, set(names))
    return Published(target, step, _read(target / META), _size(sealed.values()))


def newest(folder: Path) -> Published | None:
    """The newest published checkpoint whose files match its manifest; an older one where that is torn; else None."""
    for name in _pointed(folder):
        found = _verified(folder / name)
        if found is not None:
            return found
    return None


def bring(source: Path, folder: Path, keep: int) -> Published | None:
    """Copy the newest checkpoint of `source` into `folder` and publish it, unless `folder` holds one as new.

    Returns what is newest in `folder` afterwards. JobFault where the copy differs from its manifest.
    """
    here = newest(folder)
    there = newest(source) if source.resolve() != folder.resolve() else None
    if there is None or (here is not None and here.step >= there.step):
        return here
    clear(folder)
    partial = partial_of(folder, there.step)
    shutil.copytree(there.folder, partial)
    (partial / MANIFEST).unlink()
    sealed = seal(partial)
    if sealed != _manifest(there.folder):
        raise JobFault(f"{partial}: the copy of {there.folder} differs from its manifest; check disk and network")
    return publish(folder, there.step, sealed, keep)


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
    try:
        return [str(name) for name in _read(pointer)["published"]]
    except (ValueError, KeyError, TypeError):
        return sorted((path.parent.name for path in folder.glob(f"step-????????/{MANIFEST}")), reverse=True)


def _verified(folder: Path) -> Published | None:
    """The checkpoint in `folder`, or None where a file is missing, torn or changed."""
    try:
        manifest = _manifest(folder)
        if any((folder / name).stat().st_size != file.size_bytes for name, file in manifest.items()):
            return None
        with ThreadPoolExecutor(max_workers=4) as pool:
            digests = list(pool.map(lambda name: _sha256(folder / name), manifest))
        if digests != [file.sha256 for file in manifest.values()]:
            return None
        return Published(folder, _read(folder / MANIFEST)["step"], _read(folder / META), _size(manifest.values()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _manifest(folder: Path) -> dict[str, Sealed]:
    files = _read(folder / MANIFEST)["files"]
    return {name: Sealed(int(file["bytes"]), str(file["sha256"])) for name, file in files.items()}


def _prune(folder: Path, keep: set[str]) -> None:
    for path in folder.glob("step-????????"):
        if path.name not in keep:
            shutil.rmtree(path)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _seal_file(path: Path) -> Sealed:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return Sealed(path.stat().st_size, _sha256(path))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _size(files: Iterable[Sealed]) -> int:
    return sum(file.size_bytes for file in files)


def _read(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no mapping")
    return document
