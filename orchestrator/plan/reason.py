"""Why a job runs or waits at `now`, in one short line for people.
In: a Lattice and the runs chosen. Out: text with g/kWh and UTC times.
`status` and the report show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from orchestrator.plan.lattice import Lattice, Way
from orchestrator.plan.price import Run


def reason(cells: Lattice, runs: Sequence[Run], misses_deadline: bool, over_limit: bool) -> str:
    """One line; `over_limit` says that the deadline asks for more than `max_g_per_kwh`."""
    if not runs:
        return "no work is left"
    first = runs[0]
    line = _runs(cells, first.way) if first.start_s <= 0 else _waits(cells, first)
    if misses_deadline:
        return f"{line}; no plan meets the deadline, earliest finish {_clock(cells, runs[-1].end_s)}"
    if over_limit:
        return f"{line}; the deadline asks for more than {cells.problem.max_g_per_kwh:.0f} g/kWh"
    return line


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
    then = cells.price_at(first.way.zone_index, first.start_s)
    present = float(np.min([cells.price_at(way.zone_index, 0.0) for way in cells.ways]))
    return f"waits until {until}: {then:.0f} g/kWh then, {present:.0f} now"


def _clock(cells: Lattice, at_s: float) -> str:
    """UTC, without the date where it is today's and with seconds only where slots are short."""
    moment: datetime = cells.moment(at_s)
    text = moment.strftime("%H:%M:%SZ" if cells.problem.slot_s < 60 else "%H:%MZ")
    return text if moment.date() == cells.problem.now.date() else f"{moment:%Y-%m-%d} {text}"
