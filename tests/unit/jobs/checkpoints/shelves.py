"""Checkpoints as two ranks leave them, and targets on a real S3 server on loopback.
In: folders. Out: published checkpoints, and the fixture's server. The tests of bringing and mirroring share it.
"""

from __future__ import annotations

import os
from pathlib import Path

from jobs.checkpoints import checkpoint


def write(folder: Path, step: int, size_bytes: int = 3000, random: bool = True) -> Path:
    """The files of two ranks, not sealed yet."""
    checkpoint.clear(folder)
    partial = checkpoint.partial_of(folder, step)
    checkpoint.begin(partial, {"step": step, "essentials": {"workers.count": 2}})
    (partial / "zero").mkdir()
    for rank in range(2):
        content = os.urandom(size_bytes) if random else bytes([step % 256, rank]) * (size_bytes // 2)
        (partial / "zero" / f"rank-{rank}.pt").write_bytes(content)
    return partial


def save(folder: Path, step: int, size_bytes: int = 3000, random: bool = True, keep: int = 2) -> checkpoint.Published:
    """A published checkpoint."""
    partial = write(folder, step, size_bytes, random)
    sealed = checkpoint.seal(partial, 0, 2) | checkpoint.seal(partial, 1, 2)
    return checkpoint.publish(folder, step, sealed, keep)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the manifest, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != checkpoint.MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
