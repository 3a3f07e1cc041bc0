"""Names of checkpoints, and the pointers that say which of them are in force.
In: the folder of a job's checkpoints. Out: names, by the segment that points at them; a pointer that has moved.
`checkpoint` publishes by it. Why names carry the number of a segment, `fence` says.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from jobs.checkpoints import fence
from jobs.checkpoints.fence import POINTER, named_in, pointer_of
from jobs.checkpoints.sealing import MANIFEST, write_atomically

_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


def name_of(step: int, segment: int = 0) -> str:
    """The folder's name of the checkpoint after `step` steps, by the job's segment of this number."""
    return f"step-{step:08d}-{segment}" if segment else f"step-{step:08d}"


def partial_of(folder: Path, step: int, segment: int = 0) -> Path:
    """Where the ranks write the checkpoint of `step` before it is published."""
    return folder / f"{name_of(step, segment)}.partial"


def pointed(folder: Path) -> list[tuple[int, str]]:
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


def segment_in(name: str) -> int | None:
    """The number of the segment that a name of something in the folder carries; None where it carries none."""
    match = re.match(r"(?:step-\d{8,}|final|published)-(\d+)\b", name)
    return int(match[1]) if match else None


def point(folder: Path, target: Path, keep: int, segment: int) -> list[str]:
    """Move this segment's pointer to `target`; the names that it lists now.

    Beside it stand those that were in force: its own, or those of the last segment before it that had any.
    """
    earlier = [(number, name) for number, name in pointed(folder) if number <= segment]
    before = [name for number, name in earlier if number == earlier[0][0] and order(name)[0] < order(target.name)[0]]
    names = [target.name, *sorted(before, key=order, reverse=True)][:keep]
    write_atomically(folder / pointer_of(segment), fence.content(segment, names))
    return names


def show(folder: Path, names: list[str], segment: int) -> None:
    """Copy this segment's pointer to the one for people and other tools."""
    if segment:
        write_atomically(folder / POINTER, fence.content(segment, names), f".{segment}")
