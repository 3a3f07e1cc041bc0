"""Bringing: the newest sound checkpoint of a job, from wherever its zones left it, into the working folder.
In: the working folder, and other folders or URLs. Out: what is newest in the working folder then, and what was moved.
`resume` asks for it on one rank before anything is built.

Newest is what the latest segment that published anything points at, wherever that lies: see `fence`.

Every file is checked against its manifest's checksum as it comes; a checkpoint with a missing, torn or changed file
gives way to the next best, wherever that lies. What is read from a URL is what its zone sent, compressed where that
was faster; a plain folder is read as it is, for nobody at its end could compress.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.checkpoints import checkpoint, packing
from jobs.checkpoints.checkpoint import MANIFEST, Published, Sealed, order
from jobs.checkpoints.fence import content, named_in, pointer_of, pointers_in, refuse
from jobs.checkpoints.sealing import checksum
from jobs.checkpoints.target import Target
from jobs.patience import Pulse, together, told_as
from jobs.spec import Unavailable


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
    segment: int
    """The number of the segment whose pointer names it."""

    @property
    def rank(self) -> tuple[int, int]:
        """As a published checkpoint's."""
        return self.segment, order(self.name)[0]


class _Damaged(Exception):
    """A checkpoint elsewhere is not what its manifest says."""


def bring(
    folder: Path,
    sources: Sequence[str],
    keep: int,
    start_step: int = 0,
    say: Callable[[str], None] = print,
    segment: int = 0,
) -> Brought:
    """Copy the newest checkpoint of the sources into `folder` and publish it, unless `folder` holds one as new.

    What is in force in `folder` afterwards is the segment's own; where it may, it claims the sources, too.

    `start_step` is the step of the newest checkpoint that is known of: where a source that does not answer might have
    it, and nobody else does, Unavailable names that source. What is damaged or behind is said and passed over.
    """
    started_s = time.monotonic()
    here = checkpoint.newest(folder)
    silent: list[Unavailable] = []
    candidates = [each for source in dict.fromkeys(sources) for each in _listed(source, folder, silent, segment)]
    for candidate in sorted(candidates, key=lambda each: each.rank, reverse=True):
        if here is not None and (candidate.rank <= here.rank or _is_same(candidate, here)):
            break
        try:
            found, moved_bytes = _copied(candidate, folder, keep, segment)
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
    if here is None:
        return Brought(None)
    try:
        return Brought(checkpoint.adopt(folder, here, keep, segment))
    except FileNotFoundError:  # an earlier segment has removed it, which had published a newer one by then
        return bring(folder, sources, keep, start_step, say, segment)


def _listed(source: str, folder: Path, silent: list[Unavailable], segment: int) -> list[_Candidate]:
    """The checkpoints that a source names, by segment; where a pointer is torn, all that lie there."""
    if "://" not in source and Path(source).absolute() == folder.absolute():
        return []
    target = Target(source)
    found: dict[str, int] = {}
    try:
        pointers = pointers_in(target.files())
        if pointers and segment:
            refuse(pointers, segment, target.place)
            _claim(target, segment)
        for number in pointers:
            pointer = target.read(pointer_of(number))
            if pointer is None or number == segment > 0:
                continue
            names = named_in(pointer)
            for name in [each for each in target.folders() if checkpoint.is_name(each)] if names is None else names:
                found.setdefault(name, number)
    except Unavailable as fault:
        silent.append(fault)
        return []
    return [_Candidate(target, name, number) for name, number in found.items()]


def _claim(target: Target, segment: int) -> None:
    """Fence earlier segments off there, too. A place that cannot be written to is no place that they publish at."""
    with suppress(Unavailable):
        target.write(pointer_of(segment), json.dumps(content(segment, [])).encode())


def _is_same(candidate: _Candidate, here: Published) -> bool:
    """Whether the working folder has this very checkpoint, as where a segment took it up elsewhere and got no further.

    It is no copy that is worth fetching then.
    """
    if candidate.rank[1] != here.step:
        return False
    try:
        files = _manifest(candidate.target.read(f"{candidate.name}/{MANIFEST}"))[1]
    except (_Damaged, Unavailable):
        return False
    return checkpoint.manifest_of(here.folder) == {name: Sealed.of(about) for name, about in files.items()}


def _copied(candidate: _Candidate, folder: Path, keep: int, segment: int) -> tuple[Published, int]:
    """Copy one checkpoint and publish it; _Damaged where it is not as its manifest says."""
    target, name = candidate.target, candidate.name
    step, files = _manifest(target.read(f"{name}/{MANIFEST}"))
    if order(name)[0] != step:
        raise _Damaged(f"its manifest is of step {step}")
    checkpoint.clear(folder, segment)
    partial = checkpoint.partial_of(folder, step, segment)
    with told_as(str(folder)):
        for path in {(partial / file).parent for file in files}:
            path.mkdir(parents=True, exist_ok=True)
    acts = [_fetching(target, name, file, about, partial) for file, about in files.items()]
    fetched = together(target.place, acts)
    sealed = {file: each for file, (each, _) in zip(files, fetched, strict=True)}
    return checkpoint.publish(folder, step, sealed, keep, segment=segment), sum(size_bytes for _, size_bytes in fetched)


def _manifest(content: bytes | None) -> tuple[int, dict[str, dict[str, Any]]]:
    try:
        document = json.loads(content or b"")
        files = dict(document["files"])
        for name, about in files.items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(name)
            Sealed.of(about)  # raises where it is none
        return int(document["step"]), files
    except (ValueError, KeyError, TypeError) as fault:
        raise _Damaged("its manifest is missing or torn") from fault


def _fetching(
    target: Target, name: str, file: str, about: dict[str, Any], partial: Path
) -> Callable[[Pulse], tuple[Sealed, int]]:
    """The act that fetches one file; it returns what came, and the bytes read for it."""
    stored = str(about.get("stored", file))
    whole = Sealed.of(about)

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
            return _written(plain, partial / file, whole.kind, pulse), read
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


def _written(chunks: Iterable[bytes], path: Path, kind: str, pulse: Pulse) -> Sealed:
    """Write, flush and checksum one file. A full disk here is Unavailable, and no fault of the source."""
    found, size_bytes = checksum(kind), 0
    with told_as(str(path)), path.open("wb") as out:
        for chunk in chunks:
            found.update(chunk)
            size_bytes += len(chunk)
            out.write(chunk)
        out.flush()
        pulse.beat(checkpoint.flush_s(size_bytes))
        os.fsync(out.fileno())
    return Sealed(size_bytes, found.hexdigest(), kind)
