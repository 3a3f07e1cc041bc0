"""The zones' forecasts as the planner reads them: intensity and renewable share in one curve.
In: the newest forecast of each zone. Out: Outlooks, and those of them that one plan may compare.
`look` makes them once a pass; `frame` gives those of a job's zones to the planner.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from orchestrator.plan.problem import OperatingPoint, Stretch, ZoneOption
from orchestrator.signal.forecast import Forecast, Point, Signal, Slot


@dataclass(frozen=True)
class Outlook:
    """A zone's forecast as the planner reads it."""

    curve: tuple[Stretch, ...]
    signal: Signal = "average"
    stale_since: datetime | None = None
    """When it was fetched, where its provider has failed since."""

    def option(self, points: tuple[OperatingPoint, ...], pue: float, oldest: datetime) -> ZoneOption:
        """The zone as one that a plan may choose; a stale forecast from before `oldest` tells nothing any more."""
        too_old = self.stale_since is not None and self.stale_since < oldest
        return ZoneOption(() if too_old else self.curve, points, pue, self.stale_since)


def curves_of(forecasts: Mapping[str, Forecast]) -> dict[str, Outlook]:
    """Forecasts as the planner reads them."""
    return {
        zone: Outlook(_stretches(forecast), forecast.signal, forecast.fetched_at if forecast.stale else None)
        for zone, forecast in forecasts.items()
    }


def of_one_kind(outlooks: Mapping[str, Outlook], here: str | None) -> dict[str, Outlook]:
    """Those of the zones that can be compared with each other: average and marginal intensities never are.

    The zones of a job share a kind, but for one whose chain mixes kinds and has fallen back to another: the kind is
    then that of the zone where the job runs (`here`), else average.
    """
    kinds = {outlook.signal for outlook in outlooks.values()}
    if len(kinds) < 2:
        return dict(outlooks)
    running = outlooks.get(here) if here is not None else None
    kind = running.signal if running is not None else "average"
    return {zone: outlook for zone, outlook in outlooks.items() if outlook.signal == kind}


def _stretches(forecast: Forecast) -> tuple[Stretch, ...]:
    """The forecast's points, cut where a renewable share begins or ends; a share without a point counts too."""
    if not forecast.renewable:
        return tuple(
            Stretch(point.start, point.end, point.g_per_kwh, spread_g_per_kwh=_spread(point))
            for point in forecast.points
        )
    edges = {edge for point in forecast.points for edge in (point.start, point.end)}
    edges |= {edge for share in forecast.renewable for edge in (share.start, share.end)}
    point_starts, share_starts = [p.start for p in forecast.points], [share.start for share in forecast.renewable]
    found: list[Stretch] = []
    for start, end in pairwise(sorted(edges)):
        point = _holding(forecast.points, point_starts, start)
        share = _holding(forecast.renewable, share_starts, start)
        if point is not None or share is not None:
            g_per_kwh = point.g_per_kwh if point is not None else None
            percent, spread = share.percent if share is not None else None, _spread(point) if point is not None else 0.0
            found.append(Stretch(start, end, g_per_kwh, percent, spread))
    return tuple(found)


def _spread(point: Point) -> float:
    """Half of the 80 % interval, where the point has one."""
    if point.low_g_per_kwh is None or point.high_g_per_kwh is None:
        return 0.0
    return max(0.0, (point.high_g_per_kwh - point.low_g_per_kwh) / 2)


def _holding(slots: Sequence[Slot], starts: Sequence[datetime], moment: datetime) -> Slot | None:
    """The slot that holds the moment; None in a gap."""
    index = bisect_right(starts, moment) - 1
    return slots[index] if index >= 0 and moment < slots[index].end else None
