"""A fleet's jobs, one a line: when each came, how much work it was, and by when it was due.
In: a CSV, a Setting, the file of profiles. Out: Tasks in the file's order, or an error that names line, column and fix.
`together` runs them.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

from jobs.spec import InputError, iso, seconds, utc
from jobs.spec.units import worker_range
from orchestrator.plan import OperatingPoint
from orchestrator.simulate.profile import ONE_KW, Scale, points_of, read_profile
from orchestrator.simulate.setting import Setting, Task

REQUIRED = ("submit_utc", "length", "deadline")
OPTIONAL = ("profile", "workers", "priority", "gpus_per_worker")

_Value = TypeVar("_Value")
_Row = dict[str, str]
_ScalesOf = Callable[[str], Mapping[int, Scale]]


def read_jobs(path: Path, setting: Setting, profile: Path | None) -> list[Task]:
    """The tasks of `path`; `length` is what one worker needs, `deadline` a time or a duration from the submission.

    Raises InputError that names file, line, column and fix.
    """

    @cache
    def scales_of(model: str) -> Mapping[int, Scale]:
        if not model:
            return ONE_KW
        if profile is None:
            raise InputError("--model: needs --profile FILE, which holds its throughput and watts by worker count")
        return read_profile(profile, model)[1]

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            tasks = [_task(row, place, setting, scales_of) for place, row in _rows(file, path)]
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror or fault}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"{path}: is no CSV in UTF-8 ({str(fault)[:80]}); export it as one") from None
    if not tasks:
        raise InputError(f"{path}: line 2: holds no job; add rows of {','.join(REQUIRED)}")
    return tasks


def _rows(file: Iterator[str], path: Path) -> Iterator[tuple[str, _Row]]:
    """Where each row is, and its values by column."""
    reader = csv.DictReader(file)
    header = list(reader.fieldnames or [])
    known = (*REQUIRED, *OPTIONAL)
    for name in header:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{path}: line 1: {name[:40]!r} is no column of it; {hint}there are {', '.join(known)}")
    for name in REQUIRED:
        if name not in header:
            raise InputError(f"{path}: line 1: has no column {name}; its columns are {', '.join(header)[:80]}")
    for row in reader:
        place = f"{path}: line {reader.line_num}"
        if None in row:
            raise InputError(f"{place}: has more values than line 1 has columns; take out a comma")
        yield place, {name: (value or "").strip() for name, value in row.items()}


def _task(row: _Row, place: str, setting: Setting, scales_of: _ScalesOf) -> Task:
    start = _read(utc, row, "submit_utc", place)
    due = _read(lambda text: _due(text, start), row, "deadline", place)
    length_s = _read(seconds, row, "length", place)
    points = _points(row, place, scales_of)
    priority = _read(int, row, "priority", place, "0", "'{}' is no whole number; write e.g. 0 or 10")
    gpus = _read(_count, row, "gpus_per_worker", place, "1", "'{}' is no count of GPUs; write e.g. 1")
    task = Task(start, due, length_s, points, priority, gpus)
    if start < setting.start:
        raise InputError(f"{place}: submit_utc: the traces begin later, at {iso(setting.start)}; give longer ones")
    if due > setting.end:
        raise InputError(f"{place}: deadline: the traces end sooner, at {iso(setting.end)}; give longer ones")
    if not setting.is_known(task):
        raise InputError(f"{place}: deadline: a trace knows no intensity until then; give one that does")
    if not setting.has_room(task):
        needed = min(point.workers for point in points) * gpus
        column = "workers" if needed > gpus else "gpus_per_worker"
        raise InputError(f"{place}: {column}: needs {needed} GPUs at once; give a zone as many by --capacity, or less")
    return task


def _read(
    reader: Callable[[str], _Value], row: _Row, column: str, place: str, default: str = "", says: str = "{}"
) -> _Value:
    text = row.get(column) or default
    if not text:
        raise InputError(f"{place}: {column}: is missing; write one")
    try:
        return reader(text)
    except ValueError as fault:
        raise InputError(f"{place}: {column}: {fault if says == '{}' else says.format(text[:40])}") from None


def _due(text: str, start: datetime) -> datetime:
    due = utc(text) if "-" in text else start + timedelta(seconds=seconds(text))
    if due <= start:
        raise ValueError(f"{text!r} is not after the submission; write e.g. 36h or a later time")
    return due


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise ValueError
    return count


def _points(row: _Row, place: str, scales_of: _ScalesOf) -> tuple[OperatingPoint, ...]:
    def counts(text: str) -> tuple[int, int]:
        return worker_range(int(text) if text.isdigit() else text)

    workers = _read(counts, row, "workers", place) if row.get("workers") else None
    try:
        return points_of(scales_of(row.get("profile", "")), workers)
    except InputError as fault:
        option, _, said = str(fault).partition(": ")
        if not option.startswith("--"):  # it names the profile's own file
            raise
        raise InputError(f"{place}: {'workers' if option == '--workers' else 'profile'}: {said}") from None
