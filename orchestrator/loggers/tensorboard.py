"""Runs as TensorBoard's event files: FOLDER/JOB/, a scalar each, over steps and time.
In: a Run. Out: its event files, added to; written anew where a figure that they have was revised.
`tensorboard --logdir FOLDER` shows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from jobs.spec import Unavailable
from orchestrator.loggers.series import Run

SUFFIX = ".lowtide"
NOTE = "lowtide.json"
"""Beside the event files: their bytes, how many scalars they hold and a digest of those, so that a revision shows."""
FILES_AT_MOST = 20
"""Of a run; where processes that come and go (cron) have left more, it is written anew as one."""
Scalar = tuple[str, float, int, float]
"""Tag, value, step, and seconds since the epoch."""


def open_at(place: str, folder: Path) -> TensorBoard:
    """The event files below a folder."""
    return TensorBoard(Path(place).expanduser())


class TensorBoard:
    """One folder of runs; the writers of those that go on are kept open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def write(self, run: Run) -> None:
        """Add what is new; begin again where what is there is no longer so."""
        scalars = list(_scalars(run))
        folder = self._folder / run.job_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = _sound(folder, scalars)
            if there is None:
                self._begin_again(run.job_id, folder)
                there = 0
            if there < len(scalars):
                self._add(run.job_id, folder, scalars, there)
        except OSError as fault:
            raise Unavailable(
                f"tensorboard: {folder} cannot be written ({fault.strerror}); give another folder"
            ) from None

    def close(self) -> None:
        """Close the event files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _begin_again(self, job_id: str, folder: Path) -> None:
        if (writer := self._writers.pop(job_id, None)) is not None:
            writer.close()
        for file in _files(folder):
            file.unlink()

    def _add(self, job_id: str, folder: Path, scalars: Sequence[Scalar], there: int) -> None:
        if job_id not in self._writers:
            # Not by SummaryWriter: the flush of its thread leaves what is still queued. The count tells the file from
            # others that are begun within the same second.
            self._writers[job_id] = EventsWriter(str(folder / "events"), f".{there}{SUFFIX}")
        writer = self._writers[job_id]
        for tag, value, step, at_s in scalars[there:]:
            writer.write_event(Event(wall_time=at_s, step=step, summary=scalar(tag, value)))
        writer.flush()
        note = {"scalars": len(scalars), "digest": _digest(scalars), "bytes": _bytes(folder)}
        (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def _scalars(run: Run) -> Iterator[Scalar]:
    for point in run.points:
        for tag, value in point.values().items():
            yield tag, value, point.step, point.at.timestamp()
    if run.points:
        last = run.points[-1]
        for name, value in run.figures.items():
            yield f"report/{name}", value, last.step, last.at.timestamp()


def _sound(folder: Path, scalars: Sequence[Scalar]) -> int | None:
    """How many of the scalars are there; None where something else is, or too many files hold them."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        there = int(note["scalars"])
        as_noted = note["digest"] == _digest(scalars[:there]) and note["bytes"] == _bytes(folder)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return there if as_noted and there <= len(scalars) and len(_files(folder)) <= FILES_AT_MOST else None


def _digest(scalars: Sequence[Scalar]) -> str:
    return hashlib.sha256(json.dumps(scalars).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return list(folder.glob(f"events.out.tfevents.*{SUFFIX}"))


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in _files(folder))
