"""PUE as a number or as a series: cooling moves with the weather.
In: a number, or a CSV with `start_utc,pue`. Out: the value at any time, and its mean.
The site file names it; `charge` multiplies joules by it, plans take the mean.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from jobs.spec import InputError, utc

COLUMNS = ("start_utc", "pue")


@dataclass(frozen=True)
class PueSeries:
    """`values[i]` holds from `starts[i]` to the next start; the last one goes on, the first one held before."""

    starts: tuple[datetime, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the values, each counted once: what plans reckon with."""
        return math.fsum(self.values) / len(self.values)

    def parts(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime, float]]:
        """[start, end) cut where the value changes; of an empty stretch, the value at `start`."""
        first = max(0, bisect_right(self.starts, start) - 1)
        inner = [edge for edge in self.starts[first + 1 :] if edge < end]
        edges = [start, *inner, max(start, end)]
        return [(a, b, self.values[first + i]) for i, (a, b) in enumerate(pairwise(edges))]


Pue = float | PueSeries


def parts_of(pue: Pue, start: datetime, end: datetime) -> list[tuple[datetime, datetime, float]]:
    """[start, end) with the PUE that holds, cut where a series changes."""
    return pue.parts(start, end) if isinstance(pue, PueSeries) else [(start, end, pue)]


def mean_of(pue: Pue, start: datetime, end: datetime) -> float:
    """The mean over [start, end), by time."""
    parts = parts_of(pue, start, end)
    length_s = (end - start).total_seconds()
    if length_s <= 0 or len(parts) == 1:
        return parts[0][2]
    return math.fsum((b - a).total_seconds() * value for a, b, value in parts) / length_s


def checked(value: object) -> float | str:
    """A PUE as the site file gives it: a number from 1 on, or a CSV's path; ValueError names the fix."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < math.inf:
        raise ValueError(
            f"{value!r} is no PUE; write a number from 1 on, or the path of a CSV with {','.join(COLUMNS)}"
        )
    return float(value)


def read_pue(path: Path, field: str) -> PueSeries:
    """The series in a CSV; InputError names field, line and fix."""
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"{field}: {path} cannot be read ({fault}); give a CSV with {','.join(COLUMNS)}") from None
    found: dict[datetime, float] = {}
    for number, line in enumerate(lines, 2):
        try:
            start, value = utc(line.get("start_utc") or ""), float(line.get("pue") or "nan")
        except ValueError as fault:
            raise InputError(f"{field}: {path}: line {number}: {fault}") from None
        if not 1 <= value < math.inf:
            raise InputError(f"{field}: {path}: line {number}: {line.get('pue')!r} is no PUE; write a number from 1 on")
        found[start] = value
    if not found:
        raise InputError(f"{field}: {path} has no row; give a CSV with {','.join(COLUMNS)}")
    starts = tuple(sorted(found))
    return PueSeries(starts, tuple(found[start] for start in starts))
