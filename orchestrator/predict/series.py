"""A signal on a regular UTC grid: one mean for each step, NaN where nothing is known.
In: points of any length, in any order, with duplicates and holes. Out: a Series whose steps are means by overlap.
`extend`, `correct` and `backtest` read it; no step that the points leave open is ever filled here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt

from orchestrator.signal.forecast import Point, ordered

FloatArray = npt.NDArray[np.float64]

HOUR_S = 3600.0
LEAST_SHARE = 0.5
"""A step is known where points cover at least this share of it; a mean of less is not the step's mean."""


@dataclass(frozen=True)
class Series:
    """Means of [start + n step, start + (n + 1) step), UTC; NaN is unknown, never zero."""

    start: datetime
    step_s: float
    g_per_kwh: FloatArray

    def __len__(self) -> int:
        return len(self.g_per_kwh)

    @property
    def end(self) -> datetime:
        """End of the last step."""
        return self.time(len(self))

    @property
    def known(self) -> int:
        """Number of steps whose mean is known."""
        return int(np.isfinite(self.g_per_kwh).sum())

    def time(self, index: int) -> datetime:
        """Start of a step; the index may lie outside the series."""
        return self.start + timedelta(seconds=index * self.step_s)

    def index(self, moment: datetime) -> int:
        """The step that holds `moment`; it may lie outside the series."""
        return (moment - self.start) // timedelta(seconds=self.step_s)

    def between(self, start: datetime, end: datetime) -> Series:
        """The steps that begin in [start, end); NaN where the series has none."""
        first, last = -((self.start - start) // _step(self)), -((self.start - end) // _step(self))
        wanted = np.full(max(0, last - first), np.nan)
        a, b = max(first, 0), min(last, len(self))
        if b > a:
            wanted[a - first : b - first] = self.g_per_kwh[a:b]
        return Series(self.time(first), self.step_s, wanted)

    def to_last_known(self) -> Series:
        """Without the unknown steps at its end; empty where nothing is known."""
        finite = np.flatnonzero(np.isfinite(self.g_per_kwh))
        length = int(finite[-1]) + 1 if finite.size else 0
        return Series(self.start, self.step_s, self.g_per_kwh[:length])


def series_of(points: Iterable[Point], step_s: float = HOUR_S) -> Series | None:
    """Means of the points on the UTC multiples of `step_s`; of points with one start the last given counts.

    A step less than half covered by points with a value is NaN. None where no point has a value.
    """
    lasting = ordered(point for point in points if point.end > point.start)
    known = [point for point in lasting if point.g_per_kwh is not None]
    if not known:
        return None
    origin_s = known[0].start.timestamp() // step_s * step_s
    start_s = np.array([point.start.timestamp() for point in known]) - origin_s
    end_s = np.array([point.end.timestamp() for point in known]) - origin_s
    values = np.array([point.g_per_kwh for point in known], dtype=np.float64)
    steps = int(np.ceil(end_s[-1] / step_s))
    sums, covered_s = np.zeros(steps), np.zeros(steps)
    first = (start_s // step_s).astype(np.int64)
    last = np.ceil(end_s / step_s).astype(np.int64) - 1
    for further in range(int((last - first).max()) + 1):
        reach = first + further <= last
        cell = (first + further)[reach]
        overlap_s = np.minimum(end_s[reach], (cell + 1) * step_s) - np.maximum(start_s[reach], cell * step_s)
        np.add.at(sums, cell, overlap_s * values[reach])
        np.add.at(covered_s, cell, overlap_s)
    enough = covered_s >= LEAST_SHARE * step_s
    means = np.where(enough, sums / np.where(enough, covered_s, 1.0), np.nan)
    return Series(datetime.fromtimestamp(origin_s, timezone.utc), step_s, means)


def _step(series: Series) -> timedelta:
    return timedelta(seconds=series.step_s)
