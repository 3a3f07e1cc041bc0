"""Why a job runs or waits at `now`, in one short line for people.
In: a Lattice and the runs chosen. Out: text with g/kWh, renewable shares and UTC times.
`status` and the report show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import floor

import numpy as np

from orchestrator.plan.bounds import WITHIN, asked_for, standing
from orchestrator.plan.lattice import Lattice, Way
from orchestrator.plan.price import Run


def reason(cells: Lattice, runs: Sequence[Run], misses_deadline: bool) -> str:
    """One line: why now or not, what the deadline asks for beyond the bounds, whether the forecast is an old one."""
    if not runs:
        return "no work is left"
    first = runs[0]
    parts = [_runs(cells, first.way) if first.start_s <= 0 else _waits(cells, first)]
    if misses_deadline:
        parts.append(f"no plan meets the deadline, earliest finish {_clock(cells, runs[-1].end_s)}")
    elif beyond := asked_for(cells, runs):
        parts.append(beyond)
    zone = cells.problem.zones[first.way.zone]
    if zone.stale_since is not None:
        old = "by a stale forecast" if zone.curve else "without a forecast: the last one is too old"
        parts.append(f"{old}, fetched {_stamp(cells, zone.stale_since)}")
    return "; ".join(parts)


def _runs(cells: Lattice, way: Way) -> str:
    if cells.end_s <= 0:  # nothing beyond the deadline is told apart: no figure would be true
        return "runs: its deadline has passed"
    text = f"runs: {cells.price_at(way.zone_index, 0.0):.0f} g/kWh"
    cleaner = cells.is_open & (cells.g_per_kwh.min(axis=0) < cells.price_at(way.zone_index, 0.0))
    ahead_s = float(cells.edge_s[int(cleaner.argmax())]) if cleaner.any() else cells.end_s
    if ahead_s <= 0:
        return f"{text} in {way.zone}, {_range(cells, way)} until the deadline"
    span = f"{ahead_s:.0f} s" if ahead_s < 60 else f"{ahead_s / 60:.0f} min" if ahead_s < 3600 else _hours(ahead_s)
    return f"{text}, cleanest of the next {span}"


def _hours(duration_s: float) -> str:
    return f"{duration_s / 3600:.0f} h"


def _range(cells: Lattice, way: Way) -> str:
    prices = cells.g_per_kwh[way.zone_index]
    return f"{prices.min():.0f} to {prices.max():.0f}"


def _waits(cells: Lattice, first: Run) -> str:
    until = _clock(cells, first.start_s)
    if cells.end_s <= 0:
        return f"waits until {until}: its deadline has passed"
    if len(cells.is_open) and not cells.is_open[0]:
        return f"waits until {until}: outside its windows"
    if held := _held_back(cells):
        return f"waits until {until}: {held}"
    then = cells.price_at(first.way.zone_index, first.start_s)
    may = standing(cells)[:, 0] == WITHIN  # a cleaner zone that is out of bounds would be no reason to wait
    here = [way for way in cells.ways if may[way.zone_index]] or cells.ways
    present = min(cells.price_at(way.zone_index, 0.0) for way in here)
    return f"waits until {until}: {then:.0f} g/kWh then, {present:.0f} now"


def _held_back(cells: Lattice) -> str:
    """What the renewable share has against `now`, wherever the job may run; empty where it has nothing."""
    least = cells.problem.min_renewable_percent
    if least is None or not len(cells.is_open):
        return ""
    present = cells.renewable_percent[:, 0]
    if np.isnan(present).all():
        return "the renewable share is not known now"
    if (present >= least).any():
        return ""
    # Cut, not rounded: a share just below the bound must not read as the bound.
    return f"renewable share {floor(float(np.nanmax(present)) * 10) / 10:g} % is below {least:g} %"


def _clock(cells: Lattice, at_s: float) -> str:
    return _stamp(cells, cells.moment(at_s))


def _stamp(cells: Lattice, moment: datetime) -> str:
    """UTC, without the date where it is today's and with seconds only where slots are short."""
    text = moment.strftime("%H:%M:%SZ" if cells.problem.slot_s < 60 else "%H:%MZ")
    return text if moment.date() == cells.problem.now.date() else f"{moment:%Y-%m-%d} {text}"
