"""A zone's own place for checkpoints outside its nodes: what is published in the working folder is sent there, too.
In: published checkpoints, as they come. Out: the same at a URL, complete before it counts; older ones removed.
jobs.train pushes each; `bring` takes them from there when the working folder is gone, or in another zone.

    <url>/<job>/published-00000007.json        the pointer of the job's 7th segment, written last; the highest decides
    <url>/<job>/published.json                 the same once more, for people and other tools
    <url>/<job>/step-00000120-7/<file>[.zst]   as it is, or compressed where that is faster
    <url>/<job>/step-00000120-7/manifest.json  written after the files: their sizes and checksums as they were, and sent
    <url>/<job>/final/                         the finished model, as it is

Sending goes on in the background while the job trains; a newer checkpoint waits until the one before is there, and
those between are left out. Whatever ends it half-way, the pointer still names the one before.

A segment that a later one has fenced off (`fence`) sends no more. What it sends though it has not seen that yet goes
under its own number, and a pointer of a lower number is not read. That much holds at every store whose listings show
what was written. Best effort is the rest: a later segment that finds the newest there already points at it as it lies,
under the earlier number, and an earlier one that stalled between its look and its removing may take it along (it had
sent a newer one by then, which is used); and `final/` is one for all.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.checkpoints import packing
from jobs.checkpoints.checkpoint import MANIFEST, POINTER, Published, Sealed, is_name, manifest_of, order
from jobs.checkpoints.fence import content, named_in, pointer_of, pointers_in, refuse
from jobs.checkpoints.target import CHUNK_BYTES, Target
from jobs.patience import LANES, Pulse, together
from jobs.spec import Fenced, Unavailable

_PROBE_BYTES = 4 << 20
_PROBE_SHARE = 64
"""The bandwidth is first measured with this part of a checkpoint, on each lane."""


@dataclass(frozen=True)
class Sent:
    """What sending one checkpoint took."""

    name: str
    size_bytes: int
    sent_bytes: int
    duration_s: float


class Mirror:
    """One for a segment, on one rank. No method but `finish` waits for the network."""

    def __init__(self, url: str, keep: int, say: Callable[[str], None], segment: int = 0) -> None:
        self._url, self._keep, self._say, self._segment = url, keep, say, segment
        self._changed = threading.Condition()
        self._waiting: list[Callable[[Target], None]] = []
        self._held: str | None = None
        self._next: Published | None = None
        self._busy = False
        self._target: Target | None = None
        self._bandwidth_bytes_per_s: float | None = None

    def push(self, published: Published) -> None:
        """Send this checkpoint, once the one that is being sent is there; one that waits gives way to it."""
        with self._changed:
            self._next = published
            self._wake()

    def push_folder(self, folder: Path) -> None:
        """Send a folder as it is, under its own name, after the checkpoint that waits."""
        with self._changed:
            self._waiting.append(lambda target: send_folder(target, folder, self._segment))
            self._wake()

    def held(self) -> set[str]:
        """Names of the checkpoints that must stay in the working folder, for they are being sent."""
        with self._changed:
            return {name for name in (self._held, self._next.folder.name if self._next else None) if name}

    def finish(self) -> None:
        """Wait until all is there, or has been given up, which was said."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            threading.Thread(target=self._work, name="lowtide-mirror", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                published, self._next = self._next, None
                folder = self._waiting.pop(0) if published is None and self._waiting else None
                self._held = published.folder.name if published else None
                if published is None and folder is None:
                    self._busy = False
                    self._changed.notify_all()
                    return
            self._send(published, folder)

    def _send(self, published: Published | None, folder: Callable[[Target], None] | None) -> None:
        """Send the one or the other. One that does not answer is told of, and tried next time."""
        try:
            self._target = self._target or Target(self._url)
            if published is not None:
                if self._bandwidth_bytes_per_s is None:
                    self._bandwidth_bytes_per_s = bandwidth(self._target, published)
                done = send(self._target, published, self._keep, self._bandwidth_bytes_per_s, self._segment)
                sizes = f"{done.sent_bytes / 1e6:.1f} MB sent of {done.size_bytes / 1e6:.1f}"
                self._say(f"{done.name} is at {self._url}: {sizes} in {done.duration_s:.2f} s")
            elif folder is not None:
                folder(self._target)
        except (Unavailable, Fenced, OSError) as fault:
            what = published.folder.name if published else "the result"
            self._say(f"{what} is not at {self._url}, only in the working folder: {fault}")
        except Exception as fault:  # a thread's edge: training goes on, and the reason is told
            self._say(f"sending to {self._url} failed: {type(fault).__name__}: {fault}")


def send(
    target: Target, published: Published, keep: int, bandwidth_bytes_per_s: float | None = None, segment: int = 0
) -> Sent:
    """Send a published checkpoint; the pointer moves when all of it is there, then all but the newest `keep` go.

    Unavailable where the target does not answer, Fenced where a later segment has claimed it.
    """
    started_s = time.monotonic()
    refuse(pointers_in(target.files()), segment, target.place)
    files = manifest_of(published.folder)
    about_all: dict[str, Any] = {"step": published.step, "files": {}}
    sent_bytes = 0
    there = _there(target, published)
    name = there or published.folder.name
    if there is None:
        acts = [_sending(target, published.folder, file, bandwidth_bytes_per_s) for file in files]
        for (file, sealed), (stored, size_bytes) in zip(files.items(), together(target.place, acts), strict=True):
            about_all["files"][file] = {**sealed.listed(), "stored": stored, "sent_bytes": size_bytes}
            sent_bytes += size_bytes
        target.write(f"{name}/{MANIFEST}", _document(about_all))
    kept = _point(target, name, keep, segment)
    claimed = pointers_in(target.files())
    refuse(claimed, segment, target.place)
    if segment:
        target.write(POINTER, _document(content(segment, kept)))
    for stale in target.folders():
        if is_name(stale) and stale not in kept and order(stale)[1] <= segment:
            target.remove(stale)
    for number in claimed:
        if 0 < number < segment:
            target.remove(pointer_of(number))
    return Sent(name, published.size_bytes, sent_bytes, time.monotonic() - started_s)


def _point(target: Target, name: str, keep: int, segment: int) -> list[str]:
    """Move this segment's pointer to `name`; the names that it lists now. See `checkpoint`."""
    before: list[str] = []
    for number in pointers_in(target.files()):
        if number <= segment and not before:
            before = named_in(target.read(pointer_of(number))) or []
    names = {each for each in before if order(each)[0] < order(name)[0]}
    kept = [name, *sorted(names, key=order, reverse=True)][:keep]
    target.write(pointer_of(segment), _document(content(segment, kept)))
    return kept


def send_folder(target: Target, folder: Path, segment: int = 0) -> None:
    """Replace a folder at the target by this one, its files as they are; Fenced as `send`."""
    refuse(pointers_in(target.files()), segment, target.place)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    together(target.place, [_sending(target, folder, name, None) for name in names])


def bandwidth(target: Target, published: Published) -> float | None:
    """Bytes a second that the target takes in, all lanes together; None of a checkpoint too small to measure it by."""
    piece = bytes(min(_PROBE_BYTES, published.size_bytes // _PROBE_SHARE))
    if len(piece) < 1 << 14:
        return None
    target.write("probe-0", piece[:1])  # connects
    started_s = time.monotonic()

    def sending(lane: int) -> Callable[[Pulse], int]:
        return lambda pulse: target.send(f"probe-{lane}", iter([piece]), pulse)

    sent = sum(together(target.place, [sending(lane) for lane in range(LANES)]))
    taken_s = time.monotonic() - started_s
    for lane in range(LANES):
        target.remove(f"probe-{lane}")
    return sent / max(taken_s, 1e-6)


def _there(target: Target, published: Published) -> str | None:
    """The name under which the target has this very checkpoint already, if it has.

    As after an end between its manifest and the pointer; or it is an earlier segment's, that this one went on from.
    """
    files = manifest_of(published.folder)
    own = order(published.folder.name)[1]
    alike = [name for name in target.folders() if is_name(name) and order(name)[0] == published.step]
    for name in sorted(alike, key=order, reverse=True):
        if order(name)[1] <= own and _listed(target.read(f"{name}/{MANIFEST}")) == files:
            return name
    return None


def _listed(manifest: bytes | None) -> dict[str, Sealed] | None:
    try:
        files = json.loads(manifest or b"{}").get("files", {})
        return {name: Sealed.of(about) for name, about in files.items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        return None


def _sending(
    target: Target, folder: Path, name: str, bandwidth_bytes_per_s: float | None
) -> Callable[[Pulse], tuple[str, int]]:
    """The act that sends one file; it returns the name that it is stored under, and the bytes sent."""

    def act(pulse: Pulse) -> tuple[str, int]:
        path = folder / name
        packs = bandwidth_bytes_per_s is not None and packing.pays(packing.sample(path), bandwidth_bytes_per_s)
        stored = f"{folder.name}/{name}{packing.SUFFIX if packs else ''}"

        def once(pulse: Pulse) -> int:
            chunks = _chunks(path, pulse)
            return target.send(stored, packing.packed(chunks) if packs else chunks, pulse)

        return stored.partition("/")[2], target.tried(f"writing {stored}", once, pulse)

    return act


def _chunks(path: Path, pulse: Pulse) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            pulse.beat()
            yield chunk


def _document(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
