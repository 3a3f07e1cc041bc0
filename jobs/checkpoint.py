"""Checkpoints on disk: complete and checksummed before they count, published by one pointer that moves atomically.
In: a folder that all ranks filled. Out: `Published` checkpoints, the newest sound one first; older ones removed.
Next, jobs.state loads one into the engine. Nothing here needs torch.

    <checkpoints>/published-00000007.json  the pointer of the job's 7th segment, and its claim: the highest one decides
                                           {"segment": 7, "published": ["step-00000120-7", "step-00000080-6"]}
    <checkpoints>/published.json           the same once more, for people and other tools
    <checkpoints>/step-00000120-7/         DeepSpeed's files, meta.json, manifest.json
    <checkpoints>/step-00000160-7.partial/ being written, or left by a crash: never read
    <checkpoints>/step-00000120-7.universal/ the same for another width (jobs.universal), until the next is published
    <checkpoints>/data/                    tokens, kept so that a resume reads no text
    <checkpoints>/final/                   the finished model and its metrics

Names carry the number of the segment, so that one that wakes up late reaches nothing of a later one: see jobs.fence.

Checksums are SHA-256: CPUs assist it (1.7 GB/s on one core, blake2b 1.1), and `sha256sum` can check a folder by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from jobs import fence
from jobs.fence import blamed, named_in, pointer_of
from jobs.patience import Beat, Pulse, bounded, together, told_as
from jobs.spec import JobFault, Unavailable

MANIFEST = "manifest.json"
META = "meta.json"
POINTER = fence.POINTER
_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")
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
    segment: int = 0
    """The number of the segment whose pointer names it."""

    @property
    def rank(self) -> tuple[int, int]:
        """Of two checkpoints the greater is in force: what a later segment points at, whatever its step."""
        return self.segment, self.step


@dataclass(frozen=True)
class Sealed:
    """One file that is safely on disk: its size and SHA-256."""

    size_bytes: int
    sha256: str


def name_of(step: int, segment: int = 0) -> str:
    """The folder's name of the checkpoint after `step` steps, by the job's segment of this number."""
    return f"step-{step:08d}-{segment}" if segment else f"step-{step:08d}"


def partial_of(folder: Path, step: int, segment: int = 0) -> Path:
    """Where the ranks write the checkpoint of `step` before it is published."""
    return folder / f"{name_of(step, segment)}.partial"


def clear(folder: Path, segment: int = 0) -> None:
    """Remove the partial folders and files that a crash left. Call it on one rank, before the others write.

    Those of a later segment stay.
    """

    def act(pulse: Pulse) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob("*.partial"), *folder.glob("data/*.partial"), *folder.glob("*.json.*.fresh")]:
            if (_segment_in(stale.name) or 0) <= segment:
                pulse.beat()
                _remove(stale)

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
    segment: int = 0,
    prunes: bool = True,
) -> Published:
    """Give the sealed partial of `step` its name, move the pointer, remove all but the newest `keep` and those `held`.

    Without `prunes` that is left to `prune`. A crash before the pointer has moved leaves the checkpoint before it in
    force. JobFault where the files of the partial are not those that were sealed, Unavailable where the disk is full or
    hangs, Fenced where a later segment has claimed the folder.
    """

    def act(pulse: Pulse) -> Published:
        with blamed(folder, segment):
            return _publish(folder, step, sealed, keep, segment, pulse.beat)

    with told_as(str(folder)):
        published = bounded(str(folder), act)
    if prunes:
        prune(folder, held, segment)
    return published


def prune(folder: Path, held: Collection[str] = (), segment: int = 0) -> None:
    """Remove what this segment and earlier ones published, but for what its pointer names and what is `held`.

    Unavailable where the disk hangs.
    """

    def act(_pulse: Pulse) -> None:
        names = named_in((folder / pointer_of(segment)).read_bytes())
        if names:
            _prune(folder, {*names, *held}, segment)

    with told_as(str(folder)):
        bounded(str(folder), act)


def _publish(
    folder: Path,
    step: int,
    sealed: Mapping[str, Sealed],
    keep: int,
    segment: int,
    beat: Beat,
) -> Published:
    fence.check(folder, segment)
    partial = partial_of(folder, step, segment)
    odd = sorted(set(_files(partial)) ^ sealed.keys())
    if odd:
        said = "is not there" if odd[0] in sealed else "was never sealed"
        raise JobFault(f"{partial}: {odd[0]} {said}; do the workers share the checkpoints folder?")
    write_manifest(partial, step, sealed)
    target = folder / name_of(step, segment)
    beat()
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    sync_folder(folder)
    beat()
    names = _point(folder, target, keep, segment)
    beat()
    fence.check(folder, segment)  # a later segment that claimed before has not seen it
    _copy_pointer(folder, names, segment)
    return Published(target, step, _read(target / META), _size(sealed.values()), segment)


def newest(folder: Path) -> Published | None:
    """The published checkpoint in force: the newest of the latest segment's whose files match their manifest.

    An older one where that is torn; None where there is none.
    """
    for segment, name in bounded(str(folder), lambda _pulse: _pointed(folder)):
        found = sound(folder / name)
        if found is not None:
            return replace(found, segment=segment)
    return None


def adopt(folder: Path, found: Published, keep: int, segment: int) -> Published:
    """A checkpoint that an earlier segment published, in force as this one's own: nothing of the earlier can touch it.

    Its files get a second name, which takes no room; where the file system has none to give, it is pointed at as it is.
    FileNotFoundError where an earlier segment has removed it meanwhile.
    """
    if segment == 0 or found.segment == segment:
        return found

    def act(pulse: Pulse) -> Published:
        target = folder / name_of(found.step, segment)
        partial = partial_of(folder, found.step, segment)
        pulse.beat()
        if not _linked(found.folder, partial):
            target = found.folder
        else:
            partial.rename(target)
            sync_folder(folder)
        _copy_pointer(folder, _point(folder, target, keep, segment), segment)
        return replace(found, folder=target, segment=segment)

    with told_as(str(folder)):
        return bounded(str(folder), act)


def _point(folder: Path, target: Path, keep: int, segment: int) -> list[str]:
    """Move this segment's pointer to `target`; the names that it lists now.

    Beside it stand those that were in force: its own, or those of the last segment before it that had any.
    """
    earlier = [(number, name) for number, name in _pointed(folder) if number <= segment]
    before = [name for number, name in earlier if number == earlier[0][0] and order(name)[0] < order(target.name)[0]]
    names = [target.name, *sorted(before, key=order, reverse=True)][:keep]
    write_atomically(folder / pointer_of(segment), fence.content(segment, names))
    return names


def _copy_pointer(folder: Path, names: list[str], segment: int) -> None:
    if segment:
        write_atomically(folder / POINTER, fence.content(segment, names), f".{segment}")


def _linked(source: Path, partial: Path) -> bool:
    """Give each file of `source` a second name below `partial`; False where the file system has no such thing."""
    if partial.exists():
        shutil.rmtree(partial)
    for name in _files(source):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, partial / name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.rmtree(partial)
            return False
    missing = manifest_of(partial).keys() - set(_files(partial))
    if missing:
        raise FileNotFoundError(source / min(missing))
    return True


def write_manifest(folder: Path, step: int, sealed: Mapping[str, Sealed]) -> None:
    """List the files of a checkpoint's folder with their sizes and checksums; without it the folder never counts."""
    files = {name: {"bytes": file.size_bytes, "sha256": file.sha256} for name, file in sorted(sealed.items())}
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


def _pointed(folder: Path) -> list[tuple[int, str]]:
    """What the pointers list, by segment: the latest segment's first, of each the newest first.

    Of one that cannot be read, every folder that has a manifest.
    """
    found: dict[str, int] = {}
    with suppress(FileNotFoundError):
        for segment in fence.pointers_in(os.listdir(folder)):
            with suppress(FileNotFoundError):
                names = named_in((folder / pointer_of(segment)).read_bytes())
                for name in _whole(folder) if names is None else names:
                    found.setdefault(name, segment)
    return [(segment, name) for name, segment in found.items()]


def _whole(folder: Path) -> list[str]:
    names = (path.parent.name for path in folder.glob(f"step-*/{MANIFEST}"))
    return sorted((name for name in names if is_name(name)), key=order, reverse=True)


def is_name(name: str) -> bool:
    """Whether a folder of this name is a checkpoint's."""
    return _NAME.fullmatch(name) is not None


def order(name: str) -> tuple[int, int]:
    """The step and the segment of a checkpoint's folder, by its name; checkpoints are listed by it."""
    match = _NAME.match(name)
    return (int(match[1]), int(match[2] or 0)) if match else (-1, 0)


def _segment_in(name: str) -> int | None:
    """The number of the segment that a name of something in the folder carries; None where it carries none."""
    match = re.match(r"(?:step-\d{8,}|final|published)-(\d+)\b", name)
    return int(match[1]) if match else None


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


def _prune(folder: Path, keep: set[str], segment: int) -> None:
    """Remove the checkpoints and pointers of this segment and earlier ones that are no longer needed."""
    for path in folder.glob("step-*"):
        name = path.name.removesuffix(".universal")
        if is_name(name) and path.name not in keep and order(name)[1] <= segment:
            _remove(path)
    for number in fence.pointers_in(os.listdir(folder)):
        if 0 < number < segment:
            _remove(folder / pointer_of(number))


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, which another segment may be doing, too."""
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


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
