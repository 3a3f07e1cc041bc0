"""Checkpoints on disk: complete and checksummed before they count, published by one pointer that moves atomically.
In: a folder that all ranks filled. Out: `Published` checkpoints, the newest sound one first; older ones removed.
Next, jobs.state loads one into the engine. Nothing here needs torch.

    <checkpoints>/published-00000007.json  the pointer of the job's 7th segment, and its claim: the highest one decides
                                           {"segment": 7, "published": ["step-00000120-7", "step-00000080-6"]}
    <checkpoints>/published.json           the same once more, for people and other tools
    <checkpoints>/step-00000120-7/         DeepSpeed's files, meta.json, manifest.json
    <checkpoints>/step-00000160-7.partial/ being written, or left by a crash: never read
    <checkpoints>/step-00000120-7.universal/ the same for another width (`universal`), until the next is published
    <checkpoints>/data/                    tokens, kept so that a resume reads no text
    <checkpoints>/final/                   the finished model and its metrics

Names carry the number of the segment, so that one that wakes up late reaches nothing of a later one: see `fence`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.checkpoints import fence
from jobs.checkpoints.fence import blamed, named_in, pointer_of
from jobs.checkpoints.pointer import is_name, name_of, order, partial_of, point, pointed, segment_in, show
from jobs.checkpoints.sealing import (
    MANIFEST,
    Sealed,
    files_in,
    flush_s,
    manifest_of,
    match,
    read,
    seal,
    seal_files,
    size_of,
    sync_folder,
    unsealed,
    write_atomically,
    write_manifest,
)
from jobs.patience import Beat, Pulse, bounded, told_as
from jobs.spec import JobFault, Unavailable

__all__ = [
    "MANIFEST",
    "META",
    "POINTER",
    "Published",
    "Sealed",
    "adopt",
    "begin",
    "clear",
    "flush_s",
    "is_name",
    "make_room",
    "manifest_of",
    "name_of",
    "newest",
    "order",
    "partial_of",
    "prune",
    "publish",
    "seal",
    "seal_files",
    "sound",
    "sync_folder",
    "unsealed",
    "write_atomically",
    "write_manifest",
]

META = "meta.json"
POINTER = fence.POINTER


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


def clear(folder: Path, segment: int = 0) -> None:
    """Remove the partial folders and files that a crash left. Call it on one rank, before the others write.

    Those of a later segment stay.
    """

    def act(pulse: Pulse) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob("*.partial"), *folder.glob("data/*.partial"), *folder.glob("*.json.*.fresh")]:
            if (segment_in(stale.name) or 0) <= segment:
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
    odd = sorted(set(files_in(partial)) ^ sealed.keys())
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
    names = point(folder, target, keep, segment)
    beat()
    fence.check(folder, segment)  # a later segment that claimed before has not seen it
    show(folder, names, segment)
    return Published(target, step, read(target / META), size_of(sealed.values()), segment)


def newest(folder: Path) -> Published | None:
    """The published checkpoint in force: the newest of the latest segment's whose files match their manifest.

    An older one where that is torn; None where there is none.
    """
    for segment, name in bounded(str(folder), lambda _pulse: pointed(folder)):
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
            _adopt_universal(found.folder, target)
            sync_folder(folder)
        show(folder, point(folder, target, keep, segment), segment)
        return replace(found, folder=target, segment=segment)

    with told_as(str(folder)):
        return bounded(str(folder), act)


def _adopt_universal(before: Path, target: Path) -> None:
    """Take along the form for another width, where it was made."""
    whole, partial = before.with_name(f"{before.name}.universal"), target.with_name(f"{target.name}.universal.partial")
    if whole.is_dir():
        with suppress(FileNotFoundError):
            _linked(whole, partial)
            partial.rename(target.with_name(f"{target.name}.universal"))


def _linked(source: Path, partial: Path) -> bool:
    """Give each file of `source` a second name below `partial`; False where the file system has no such thing."""
    if partial.exists():
        shutil.rmtree(partial)
    for name in files_in(source):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, partial / name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.rmtree(partial)
            return False
    missing = manifest_of(partial).keys() - set(files_in(partial))
    if missing:
        raise FileNotFoundError(source / min(missing))
    return True


def sound(folder: Path) -> Published | None:
    """The checkpoint in `folder`, or None where a file is missing, torn or changed."""

    def act(_pulse: Pulse) -> tuple[int, dict[str, Any], dict[str, Sealed]] | None:
        manifest = manifest_of(folder)
        if any((folder / name).stat().st_size != file.size_bytes for name, file in manifest.items()):
            return None
        return read(folder / MANIFEST)["step"], read(folder / META), manifest

    try:
        about = bounded(str(folder), act)
        if about is None:
            return None
        step, meta, manifest = about
        # The manifest has no checksum of its own; its step is also in the meta, which it lists.
        if not match(folder, manifest) or meta.get("step", step) != step:
            return None
        return Published(folder, step, meta, size_of(manifest.values()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    """Remove a file, or a folder with all that is in it, which another segment may be doing, too.

    Where an earlier one still writes into the folder, what it adds is left: whoever clears next removes it.
    """
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as fault:
        if fault.errno != errno.ENOTEMPTY:
            raise
