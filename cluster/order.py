"""A segment's order and result as JSON documents, which cross process and Ray version boundaries.
In: SegmentOrder and SegmentResult. Out: JSON text and back, equal; and where a segment leaves its result.
The segment's driver and its workers read the order; the controller's side reads the result.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cluster.api import SegmentOrder, SegmentResult
from jobs.patience import bounded, told_as
from jobs.spec.errors import Unavailable

VARIABLE = "LOWTIDE_ORDER"
"""Environment variable that carries the order to the segment's driver."""
ADDRESS = "LOWTIDE_GCS"
"""Environment variable with the GCS address of the Ray that the segment is a job of."""
SUBMITTED_AT = "LOWTIDE_SUBMITTED_AT"
"""Environment variable with the time of submission, in seconds since the epoch."""
TRACEBACK = "lowtide_traceback"
"""Attribute of a worker's exception with its traceback as text."""

SILENCE_S = 30.0
"""How long a disk may take to a result of a few kilobytes."""

READ_S = 5.0
"""Likewise to read one, where a controller waits that has other segments, too."""

_ORDER = TypeAdapter(SegmentOrder)
_RESULT = TypeAdapter(SegmentResult)


def write_order(order: SegmentOrder) -> str:
    """The order as JSON text."""
    return _ORDER.dump_json(order, by_alias=True).decode()


def read_order(text: str) -> SegmentOrder:
    """The order in JSON text; ValueError where it is none."""
    return _ORDER.validate_json(text)


def number_of(segment_id: str) -> int:
    """Which of its job's segments it is: the n of `<job>-<n>`; 0 where the id has none."""
    number = segment_id.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def result_path(checkpoints: str, segment_id: str) -> Path:
    """Where a segment leaves its result, beside the job's checkpoints."""
    return Path(checkpoints) / "segments" / f"{segment_id}.json"


def code_path(checkpoints: str) -> Path:
    """Where the job's workers find the copy of its working folder."""
    return Path(checkpoints) / "code.tar.gz"


def write_result(path: Path, result: SegmentResult) -> None:
    """Write the result so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(_RESULT.dump_json(result))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def leave_result(path: Path, result: SegmentResult) -> bool:
    """Write the result; False where the disk is full or hangs, which is said: the control actor can have it still."""
    try:
        with told_as(str(path)):
            bounded(str(path), lambda _pulse: write_result(path, result), SILENCE_S)
    except Unavailable as fault:
        print(f"lowtide: the result could not be left beside the checkpoints: {fault}", flush=True)
        return False
    return True


def read_result(path: Path) -> SegmentResult | None:
    """The result that a segment left at `path`; None where it left none that can be read.

    Unavailable where the disk hangs: whether there is one is not known then.
    """
    try:
        return _RESULT.validate_json(bounded(str(path), lambda _pulse: path.read_bytes(), READ_S))
    except (OSError, ValidationError):
        return None
