"""A checkpoint on its way: to a folder, a file URL and S3, plainly or compressed, over links of several speeds.
In: checkpoints as training leaves them, made up of normal numbers and of zeros. Out: seconds, bytes, and goals.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import xxhash

from jobs.checkpoints import checkpoint, mirror
from jobs.checkpoints.bring import bring
from jobs.checkpoints.checkpoint import Published
from jobs.checkpoints.target import Target
from jobs.patience import Pulse
from tests import s3
from tests.bench.figure import Figure, Options, Section, Table

PARAMETERS = 8_000_000
LINKS_MB_PER_S = (10, 50)
AS_GOOD = 1.15
"""What was chosen shall take no longer than the better of both, but for so much noise."""
TURNS = 5
COPY = 1.25
"""Bringing verifies and publishes besides: it shall take at most so many times a checksummed and flushed copy."""


class Link(Target):
    """A target behind a link that takes so many bytes a second, all lanes together."""

    def __init__(self, place: str, bytes_per_s: float) -> None:
        super().__init__(place)
        self._bytes_per_s, self._lock, self._free_at_s = bytes_per_s, threading.Lock(), 0.0

    def send(self, name: str, chunks: Iterable[bytes], pulse: Pulse) -> int:
        return super().send(name, self._paced(chunks), pulse)

    def _paced(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            with self._lock:
                self._free_at_s = max(self._free_at_s, time.monotonic()) + len(chunk) / self._bytes_per_s
                until_s = self._free_at_s
            time.sleep(max(0.0, until_s - time.monotonic()))
            yield chunk


def measure(options: Options) -> Section:
    """Bring over each kind of place, then send over each link."""
    section = Section("moving")
    with tempfile.TemporaryDirectory(prefix="lowtide-moving-") as name:
        folder = Path(name)
        trained, fresh = (_checkpoint(folder / kind, kind == "fresh") for kind in ("trained", "fresh"))
        section.tables.append(_bringing(section, folder, trained))
        section.tables.append(_links(section, folder, {"trained": trained, "fresh moments": fresh}))
    return section


def _checkpoint(folder: Path, fresh: bool) -> Published:
    """Weights and the two moments of Adam, in two shards; `fresh`: the moments are zeros, as before the first step."""
    draw = np.random.default_rng(0)
    checkpoint.clear(folder)
    begun = checkpoint.partial_of(folder, 1)
    checkpoint.begin(begun, {"step": 1})
    for rank in range(2):
        count = PARAMETERS // 2
        weights = draw.normal(0.0, 0.02, count)
        moments = [np.zeros(count), np.zeros(count)] if fresh else [weights * 1e-3, weights**2 * 1e-4]
        np.concatenate([weights, *moments]).astype(np.float32).tofile(begun / f"shard-{rank}.bin")
    return checkpoint.publish(folder, 1, checkpoint.seal(begun), keep=1)


def _bringing(section: Section, folder: Path, found: Published) -> Table:
    rows = []
    places = {"folder": str(found.folder.parent), "file URL": (folder / "away").as_uri()}
    with pytest.MonkeyPatch.context() as environment, s3.running() as endpoint:
        for name, value in s3.environment(endpoint).items():
            environment.setenv(name, value)
        places["S3 on loopback"] = f"s3://{s3.make_bucket()}/job"
        for kind, place in places.items():
            if "://" in place:
                mirror.send(Target(place), found, keep=1)
            pairs = []
            for turn in range(TURNS):  # in turns, for what else writes to the disk comes and goes
                copied_s = _copied_s(found.folder, folder / f"{kind}-copy-{turn}")
                pairs.append((bring(folder / f"{kind}-{turn}", [place], keep=1).duration_s, copied_s))
            taken_s, plain_s = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(brought_s / copied_s for brought_s, copied_s in pairs)
            rows.append((kind, f"{taken_s:.2f}", f"{plain_s:.2f}", f"{ratio:.2f}"))
            goal = COPY if kind == "folder" else None
            section.figures.append(Figure(f"bring from {kind}", ratio, "x a copy", at_most=goal))
    columns = ("from", "s", "a copy, checksummed and flushed, s", "x")
    return Table(f"{found.size_bytes / 1e6:.0f} MB brought", columns, rows)


def _copied_s(source: Path, target: Path) -> float:
    """One file after the other, each read, checksummed, written and flushed."""
    began_s = time.monotonic()
    target.mkdir()
    for path in source.iterdir():
        digest = xxhash.xxh3_128()
        with path.open("rb") as given, (target / path.name).open("wb") as out:
            while chunk := given.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    return time.monotonic() - began_s


def _links(section: Section, folder: Path, checkpoints: dict[str, Published]) -> Table:
    rows, worst = [], 0.0
    for kind, found in checkpoints.items():
        for speed in LINKS_MB_PER_S:
            taken_s: dict[str, tuple[float, int]] = {}
            for way, pays in (("plain", False), ("compressed", True), ("chosen", None)):
                link = Link(str(folder / f"{kind}-{speed}-{way}"), speed * 1e6)
                with (
                    patch("jobs.checkpoints.packing.pays", lambda *_, pays=pays: pays)
                    if pays is not None
                    else patch.dict({})
                ):
                    sent = mirror.send(link, found, 1, mirror.bandwidth(link, found))
                taken_s[way] = (sent.duration_s, sent.sent_bytes)
            best_s = min(taken_s["plain"][0], taken_s["compressed"][0])
            worst = max(worst, taken_s["chosen"][0] / best_s)
            share = taken_s["chosen"][1] / found.size_bytes
            seconds = [f"{taken_s[way][0]:.2f}" for way in ("plain", "compressed", "chosen")]
            rows.append((kind, f"{speed}", *seconds, f"{100 * share:.1f}"))
    section.figures.append(Figure("what was chosen, at worst", worst, "x the better of both", at_most=AS_GOOD))
    size_mb = next(iter(checkpoints.values())).size_bytes / 1e6
    columns = ("checkpoint", "MB/s", "plain s", "compressed s", "chosen s", "sent %")
    return Table(f"{size_mb:.0f} MB sent over a link", columns, rows)
