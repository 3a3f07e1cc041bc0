"""Packing: whether a file is compressed before it is sent, and the streams that do it.
In: a sample of the file, and the bandwidth. Out: a decision, and packed or unpacked chunks.
`mirror` asks before it sends; `bring` unpacks what it reads.

Weights and moments of a trained model are nearly random in all but their exponents: Zstandard takes a tenth off them,
and zeros (of fresh moments, of padding) all but away. So a sample of each file decides, not a rule: compressing and
sending go on at once, so the slower of the two sets the time, and it pays where that is faster than sending plainly.
Zstandard: RFC 8878, at level 1, the fastest that has entropy coding.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from jobs.patience import LANES

SUFFIX = ".zst"
LEVEL = 1
WORTH = 0.95
"""Packing must take less than this share of the time that sending plainly takes."""
_SAMPLE_BYTES = 1 << 20
_SAMPLES = 3
_LEAST_BYTES = 1 << 20
"""A smaller file is sent as it is."""


@dataclass(frozen=True)
class Sample:
    """What compressing parts of a file showed."""

    ratio: float
    """Compressed bytes by plain bytes."""
    bytes_per_s: float
    """Plain bytes that one core takes in."""


def sample(path: Path) -> Sample | None:
    """Compress up to three parts of the file, its beginning, middle and end; None where it is too small to matter."""
    size_bytes = path.stat().st_size
    if size_bytes < _LEAST_BYTES:
        return None
    packer = zstandard.ZstdCompressor(level=LEVEL)
    plain = packed = 0
    taken_s = 0.0
    with path.open("rb") as file:
        for part in range(_SAMPLES):
            file.seek(part * (size_bytes - _SAMPLE_BYTES) // (_SAMPLES - 1))
            piece = file.read(_SAMPLE_BYTES)
            started_s = time.perf_counter()
            packed += len(packer.compress(piece))
            taken_s += time.perf_counter() - started_s
            plain += len(piece)
    return Sample(packed / plain, plain / max(taken_s, 1e-9))


def pays(found: Sample | None, bandwidth_bytes_per_s: float | None, cores: int | None = None) -> bool:
    """Whether a file goes faster compressed. Of an unknown bandwidth nothing is known to be faster."""
    if found is None or bandwidth_bytes_per_s is None:
        return False
    lanes = max(1, min(LANES, cores or os.cpu_count() or 1))
    plain_s = 1.0 / bandwidth_bytes_per_s
    packed_s = max(1.0 / (found.bytes_per_s * lanes), found.ratio / bandwidth_bytes_per_s)
    return packed_s < WORTH * plain_s


def packed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, compressed."""
    packer = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    for chunk in chunks:
        if piece := packer.compress(chunk):
            yield piece
    yield packer.flush()


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, decompressed; ValueError where they are no such stream, or end within it."""
    stream = zstandard.ZstdDecompressor().decompressobj()
    try:
        for chunk in chunks:
            if piece := stream.decompress(chunk):
                yield piece
    except zstandard.ZstdError as fault:
        raise ValueError(f"no Zstandard stream: {fault}") from fault
    if not stream.eof:
        raise ValueError("the Zstandard stream is cut short")
