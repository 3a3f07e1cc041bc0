"""A zone's own place for checkpoints outside its nodes: what is published in the working folder is sent there, too.
In: published checkpoints, as they come. Out: the same at a URL, complete before it counts; older ones removed.
jobs.train pushes each; jobs.bring takes them from there when the working folder is gone, or in another zone.

    <url>/<job>/published.json                 the pointer, written last
    <url>/<job>/step-00000120/<file>[.zst]     as it is, or compressed where that is faster
    <url>/<job>/step-00000120/manifest.json    written after the files: their sizes and SHA-256 as they were, and sent
    <url>/<job>/final/                         the finished model, as it is

Sending goes on in the background while the job trains; a newer checkpoint waits until the one before is there, and
those between are left out. Whatever ends it half-way, the pointer still names the one before.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import packing
from jobs.checkpoint import MANIFEST, POINTER, Published, manifest_of, named_in
from jobs.patience import LANES, Pulse, together
from jobs.spec import Unavailable
from jobs.target import CHUNK_BYTES, Target

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

    def __init__(self, url: str, keep: int, say: Callable[[str], None]) -> None:
        self._url, self._keep, self._say = url, keep, say
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
            self._waiting.append(lambda target: send_folder(target, folder))
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
                done = send(self._target, published, self._keep, self._bandwidth_bytes_per_s)
                sizes = f"{done.sent_bytes / 1e6:.1f} MB sent of {done.size_bytes / 1e6:.1f}"
                self._say(f"{done.name} is at {self._url}: {sizes} in {done.duration_s:.2f} s")
            elif folder is not None:
                folder(self._target)
        except (Unavailable, OSError) as fault:
            what = published.folder.name if published else "the result"
            self._say(f"{what} is not at {self._url}, only in the working folder: {fault}")
        except Exception as fault:  # a thread's edge: training goes on, and the reason is told
            self._say(f"sending to {self._url} failed: {type(fault).__name__}: {fault}")


def send(target: Target, published: Published, keep: int, bandwidth_bytes_per_s: float | None = None) -> Sent:
    """Send a published checkpoint; the pointer moves when all of it is there, then all but the newest `keep` go.

    Unavailable where the target does not answer.
    """
    started_s, name = time.monotonic(), published.folder.name
    files = manifest_of(published.folder)
    content: dict[str, Any] = {"step": published.step, "files": {}}
    sent_bytes = 0
    if not _is_there(target, published.folder):
        acts = [_sending(target, published.folder, file, bandwidth_bytes_per_s) for file in files]
        for (file, sealed), (stored, size_bytes) in zip(files.items(), together(target.place, acts), strict=True):
            about = {"bytes": sealed.size_bytes, "sha256": sealed.sha256, "stored": stored, "sent_bytes": size_bytes}
            content["files"][file] = about
            sent_bytes += size_bytes
        target.write(f"{name}/{MANIFEST}", _document(content))
    names = {name, *(each for each in named_in(target.read(POINTER)) if each <= name)}
    kept = sorted(names, reverse=True)[:keep]
    target.write(POINTER, _document({"published": kept}))
    for stale in target.folders():
        if stale.startswith("step-") and stale not in kept:
            target.remove(stale)
    return Sent(name, published.size_bytes, sent_bytes, time.monotonic() - started_s)


def send_folder(target: Target, folder: Path) -> None:
    """Replace a folder at the target by this one, its files as they are."""
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


def _is_there(target: Target, folder: Path) -> bool:
    """Whether the target has this very checkpoint already, as after an end between its manifest and the pointer."""
    there = target.read(f"{folder.name}/{MANIFEST}")
    try:
        files = json.loads(there or b"{}").get("files", {})
        sums = {name: about["sha256"] for name, about in files.items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        return False
    return sums == {name: sealed.sha256 for name, sealed in manifest_of(folder).items()}


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
