"""Bringing: the newest sound checkpoint of a job, from wherever its zones left it, into the working folder.
In: the working folder, and other folders or URLs. Out: what is newest in the working folder then, and what was moved.
jobs.resume asks for it on one rank before anything is built.

Every file is checked against its manifest's SHA-256 as it comes; a checkpoint with a missing, torn or changed file
gives way to the next best, wherever that lies. What is read from a URL is what its zone sent, compressed where that
was faster; a plain folder is read as it is, for nobody at its end could compress.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import checkpoint, packing
from jobs.checkpoint import MANIFEST, POINTER, Published, Sealed, named_in
from jobs.patience import Pulse, together, told_as
from jobs.spec import Unavailable
from jobs.target import Target


@dataclass(frozen=True)
class Brought:
    """What is newest in the working folder after all, and what it took to get it there."""

    found: Published | None
    moved_bytes: int = 0
    """Bytes that were read from elsewhere, compressed or not; 0 where the working folder had it."""
    moved_from: str | None = None
    duration_s: float = 0.0


@dataclass(frozen=True)
class _Candidate:
    target: Target
    name: str


class _Damaged(Exception):
    """A checkpoint elsewhere is not what its manifest says."""


def bring(
    folder: Path, sources: Sequence[str], keep: int, start_step: int = 0, say: Callable[[str], None] = print
) -> Brought:
    """Copy the newest checkpoint of the sources into `folder` and publish it, unless `folder` holds one as new.

    `start_step` is the step of the newest checkpoint that is known of: where a source that does not answer might have
    it, and nobody else does, Unavailable names that source. What is damaged or behind is said and passed over.
    """
    started_s = time.monotonic()
    here = checkpoint.newest(folder)
    silent: list[Unavailable] = []
    candidates = [each for source in dict.fromkeys(sources) for each in _listed(source, folder, silent)]
    for candidate in sorted(candidates, key=lambda each: each.name, reverse=True):
        if here is not None and candidate.name <= here.folder.name:
            break
        try:
            found, moved_bytes = _copied(candidate, folder, keep)
            return Brought(found, moved_bytes, candidate.target.place, time.monotonic() - started_s)
        except _Damaged as fault:
            say(f"lowtide: {candidate.target.place}/{candidate.name} is damaged ({fault}); the one before is used")
        except Unavailable as unreachable:
            silent.append(unreachable)
    step = here.step if here is not None else 0
    if silent and step < start_step:
        raise Unavailable(f"the checkpoint of step {start_step} cannot be brought: {silent[0]}") from silent[0]
    for each in silent:
        say(f"lowtide: {each}; going on from step {step}, which is not behind what is known")
    if step < start_step:
        say(f"lowtide: the checkpoint of step {start_step} is lost or damaged everywhere; going on from step {step}")
    return Brought(here)


def _listed(source: str, folder: Path, silent: list[Unavailable]) -> list[_Candidate]:
    """The checkpoints that a source names, newest first; where its pointer is torn, all that lie there."""
    if "://" not in source and Path(source).absolute() == folder.absolute():
        return []
    target = Target(source)
    try:
        pointer = target.read(POINTER)
        if pointer is None:
            return []
        names = named_in(pointer) or [name for name in target.folders() if checkpoint.is_name(name)]
    except Unavailable as fault:
        silent.append(fault)
        return []
    return [_Candidate(target, name) for name in names]


def _copied(candidate: _Candidate, folder: Path, keep: int) -> tuple[Published, int]:
    """Copy one checkpoint and publish it; _Damaged where it is not as its manifest says."""
    target, name = candidate.target, candidate.name
    step, files = _manifest(target.read(f"{name}/{MANIFEST}"))
    if checkpoint.name_of(step) != name:
        raise _Damaged(f"its manifest is of step {step}")
    checkpoint.clear(folder)
    partial = checkpoint.partial_of(folder, step)
    with told_as(str(folder)):
        for path in {(partial / file).parent for file in files}:
            path.mkdir(parents=True, exist_ok=True)
    acts = [_fetching(target, name, file, about, partial) for file, about in files.items()]
    fetched = together(target.place, acts)
    sealed = {file: each for file, (each, _) in zip(files, fetched, strict=True)}
    return checkpoint.publish(folder, step, sealed, keep), sum(size_bytes for _, size_bytes in fetched)


def _manifest(content: bytes | None) -> tuple[int, dict[str, dict[str, Any]]]:
    try:
        document = json.loads(content or b"")
        files = dict(document["files"])
        for name, about in files.items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(name)
            about["bytes"], about["sha256"] = int(about["bytes"]), str(about["sha256"])
        return int(document["step"]), files
    except (ValueError, KeyError, TypeError) as fault:
        raise _Damaged("its manifest is missing or torn") from fault


def _fetching(
    target: Target, name: str, file: str, about: dict[str, Any], partial: Path
) -> Callable[[Pulse], tuple[Sealed, int]]:
    """The act that fetches one file; it returns what came, and the bytes read for it."""
    stored = str(about.get("stored", file))
    whole = Sealed(about["bytes"], about["sha256"])

    def once(pulse: Pulse) -> tuple[Sealed, int]:
        read = 0

        def counted() -> Iterable[bytes]:
            nonlocal read
            for chunk in target.chunks(f"{name}/{stored}", pulse):
                read += len(chunk)
                yield chunk

        came = counted()
        try:
            plain = packing.unpacked(came) if stored != file and stored.endswith(packing.SUFFIX) else came
            return _written(plain, partial / file, pulse), read
        except FileNotFoundError as fault:
            raise _Damaged(f"{file} is missing") from fault
        except ValueError as fault:
            raise _Damaged(f"{file}: {fault}") from fault

    def act(pulse: Pulse) -> tuple[Sealed, int]:
        found, read = _patiently(target, stored, once, pulse)
        if found != whole:
            raise _Damaged(f"{file} differs from its checksum")
        return found, read

    return act


def _patiently(
    target: Target, stored: str, once: Callable[[Pulse], tuple[Sealed, int]], pulse: Pulse
) -> tuple[Sealed, int]:
    """`once`, tried again where the target faltered; damage is none that another try would mend."""
    damage: list[_Damaged] = []

    def act(pulse: Pulse) -> tuple[Sealed, int] | None:
        try:
            return once(pulse)
        except _Damaged as fault:
            damage.append(fault)
            return None

    found = target.tried(f"reading {stored}", act, pulse)
    if found is None:
        raise damage[0]
    return found


def _written(chunks: Iterable[bytes], path: Path, pulse: Pulse) -> Sealed:
    """Write, flush and checksum one file. A full disk here is Unavailable, and no fault of the source."""
    digest, size_bytes = hashlib.sha256(), 0
    with told_as(str(path)), path.open("wb") as out:
        for chunk in chunks:
            digest.update(chunk)
            size_bytes += len(chunk)
            out.write(chunk)
        out.flush()
        pulse.beat(checkpoint.flush_s(size_bytes))
        os.fsync(out.fileno())
    return Sealed(size_bytes, digest.hexdigest())
