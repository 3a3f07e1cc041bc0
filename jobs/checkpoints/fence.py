"""The fence: which segment of a job may publish its checkpoints, so that one that wakes up late changes nothing.
In: a folder of checkpoints and the number of a segment, the job's n-th. Out: its claim there, or Fenced.
`resume` claims before it looks for the newest checkpoint; who writes there asks before, and so does `mirror`.

A segment whose node was cut off from the cluster, but not from the file system, trains on until its `run_until` beside
the segment that took over from it. What keeps them apart is names, not moments:

- Each segment points at its checkpoints in a file of its own, `published-<n>.json`. To claim is to make that file, with
  no name in it, by link(2), which only one can do, on NFS, too. A reader takes the highest number that names a sound
  checkpoint: once n + 1 has named one, nothing that n does to its own file is ever read.
- A segment writes, replaces and removes what carries its own number or a lower one, in folders as in pointers. So what
  n + 1 writes is out of n's reach; what it goes on from it links, file by file, into a folder of its own first.
- A segment asks whether a later one has claimed before it begins a checkpoint, before it points at one, and after. The
  first two spare work; the last keeps it from believing in one that was pointed at too late. None need be fresh:
  an answer that is old, or a stall behind it of any length, leads to files under the old number, which nobody reads.
- n + 1 reads after it has claimed: it goes on from whatever n had in force then, and names it. What n publishes between
  that reading and that naming is lost to it as if n had ended before; the training is the same, step by step.

Without hard links the claim is O_CREAT | O_EXCL, and n + 1 names n's folder as it is: a stalled n that was already
removing it may take it along, and the checkpoint that n has pointed at instead is used. At a URL the same holds: names
keep them apart wherever a listing shows what was written before (S3, GCS and Azure promise that; a cache may not).
"""

from __future__ import annotations

import json
import os
import platform
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jobs.spec import Fenced, LowtideError

POINTER = "published.json"
"""What a writer without a number points with; for the others a copy of theirs, for people and other tools."""
_POINTER = re.compile(r"published(?:-(\d+))?\.json")


def pointer_of(segment: int) -> str:
    """The name of a segment's own pointer; 0 is a writer that has no number, and gives way to all that have."""
    return f"published-{segment:08d}.json" if segment else POINTER


def pointers_in(names: Iterable[str]) -> list[int]:
    """The numbers of the segments whose pointers are among these names, the highest first."""
    found = (_POINTER.fullmatch(name) for name in names)
    return sorted({int(match[1] or 0) for match in found if match}, reverse=True)


def claim(folder: Path, segment: int) -> None:
    """Let no earlier segment publish in `folder` from now on. Call it on one rank, before anything is read there.

    Fenced where a later segment has claimed, or another process has as this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if segment:
        _claim(folder, segment)
    check(folder, segment)


def check(folder: Path, segment: int) -> None:
    """Fenced where a later segment has claimed `folder`."""
    with suppress(FileNotFoundError):
        refuse(pointers_in(os.listdir(folder)), segment, str(folder))


def refuse(claimed: list[int], segment: int, where: str) -> None:
    """Fenced where a later segment is among those that have claimed."""
    later = max(claimed, default=0)
    if later > segment:
        raise Fenced(f"fenced by segment {later} of the job, which has taken over {where}: this one publishes no more")


@contextmanager
def blamed(folder: Path, segment: int) -> Iterator[None]:
    """Where files that a later segment has removed are told as that, and not as what was found missing."""
    try:
        yield
    except (OSError, LowtideError):
        check(folder, segment)
        raise


def named_in(pointer: bytes | None) -> list[str] | None:
    """The names that a pointer's content lists, newest first; None where it is torn."""
    try:
        return [str(name) for name in json.loads(pointer or b"")["published"]]
    except (ValueError, KeyError, TypeError):
        return None


def content(segment: int, names: list[str]) -> dict[str, Any]:
    """What a pointer says."""
    return {"segment": segment, "published": names} if segment else {"published": names}


def _claim(folder: Path, segment: int) -> None:
    pointer = folder / pointer_of(segment)
    about = {**content(segment, []), "claimed_by": f"process {os.getpid()} on {platform.node()}"}
    fresh = folder / f"{pointer.name}.{uuid.uuid4().hex[:12]}.fresh"
    with fresh.open("x", encoding="utf-8") as out:
        json.dump(about, out)
        out.flush()
        os.fsync(out.fileno())
    try:
        _link(fresh, pointer)
    except FileExistsError:
        raise Fenced(f"fenced: {pointer} was claimed before; another process runs as segment {segment}") from None
    finally:
        fresh.unlink()
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(fresh: Path, pointer: Path) -> None:
    """Give the file its second name; FileExistsError where that is taken."""
    try:
        os.link(fresh, pointer)
    except FileExistsError:
        if fresh.stat().st_nlink != 2:  # 2: NFS has done it, and its first answer was lost
            raise
    except OSError:  # no hard links here
        with pointer.open("xb") as out:
            out.write(fresh.read_bytes())
            out.flush()
            os.fsync(out.fileno())
