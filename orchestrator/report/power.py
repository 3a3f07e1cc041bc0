"""Power over time, by worker, from metered rows.
In: rows of one job. Out: a step curve of watts for each rank, and the stretches that nobody could read.
The picture stacks them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import fsum

from cluster.api import MeterRow

STEPS_AT_MOST = 360
"""More than that a picture cannot show; longer records are averaged, and their joules stay the same."""


@dataclass(frozen=True)
class Power:
    """`watts[rank][i]` holds from `times[i]` to `times[i + 1]`; the last is 0. The driver (-1) comes first."""

    times: tuple[datetime, ...]
    watts: dict[int | None, tuple[float, ...]]
    unread: tuple[tuple[datetime, datetime], ...]

    @property
    def peak_w(self) -> float:
        """Most watts of all workers together."""
        return max((fsum(at) for at in zip(*self.watts.values(), strict=True)), default=0.0)


def power_of(rows: Sequence[MeterRow]) -> Power:
    """Watts are energy / (end - start), spread evenly over each row; rows without length show nowhere."""
    long = [row for row in rows if row.end > row.start]
    unread = _joined([(row.start, row.end) for row in long if row.energy_j is None])
    edges = _edges(long)
    joules: dict[int | None, list[float]] = {
        rank: [0.0] * len(edges)
        for rank in sorted({row.rank for row in long if row.energy_j is not None}, key=lambda r: (r is None, r or 0))
    }
    for row in long:
        if row.energy_j is not None:
            _spread(joules[row.rank], edges, row.start.timestamp(), row.end.timestamp(), row.energy_j)
    lengths_s = [after - before for before, after in zip(edges, edges[1:], strict=False)] + [1.0]
    watts = {
        rank: tuple(energy_j / length_s for energy_j, length_s in zip(own, lengths_s, strict=True))
        for rank, own in joules.items()
    }
    return Power(tuple(datetime.fromtimestamp(edge, tz=timezone.utc) for edge in edges), watts, tuple(unread))


def _edges(rows: Sequence[MeterRow]) -> list[float]:
    """Every edge of a row, or evenly spaced ones where those are too many."""
    edges = sorted({moment.timestamp() for row in rows for moment in (row.start, row.end)})
    if len(edges) <= STEPS_AT_MOST:
        return edges
    step_s = (edges[-1] - edges[0]) / STEPS_AT_MOST
    return [edges[0] + i * step_s for i in range(STEPS_AT_MOST)] + [edges[-1]]


def _spread(joules: list[float], edges: Sequence[float], start: float, end: float, energy_j: float) -> None:
    """Add a row's joules to the steps that it overlaps."""
    step = max(0, bisect_right(edges, start) - 1)
    while step + 1 < len(edges) and edges[step] < end:
        overlap_s = min(end, edges[step + 1]) - max(start, edges[step])
        joules[step] += energy_j * max(0.0, overlap_s) / (end - start)
        step += 1


def _joined(stretches: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    joined: list[tuple[datetime, datetime]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
