"""Forecasts made better, on recorded grids: corrected day-ahead forecasts, and extension from history alone.
In: the folder of the recorded grids. Out: errors and savings by grid, errors by zone, and what an irregular record has.
Everything is forecast by rolling origin: `tests.bench.rolling` knows only the past of each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.predict import series_of
from orchestrator.predict.score import LENGTHS_H
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.recorded import DAY_H, DayAhead, day_ahead, grids, hourly, live, zones
from tests.bench.rolling import HISTORY_H, WEEK_H, Days, days_of, difference, mape_percent, share, weeks_of

FIRST_DAY = 62
"""September the first: four months are scored, and the two before them are learnt from."""
EVERY_H, EVERY_H_WHOLE = 49, 7
"""How far apart the origins of extension are; no multiple of a day, so that every hour of it comes up."""
STEADY = 0.05
"""A zone whose intensity has a smaller coefficient of variation than this is shown and not judged."""


def measure(options: Options) -> Section:
    """Forecast every recorded grid by rolling origin."""
    missing = [name for name in ("day-ahead-2021", "hourly-2022", "live-2022") if not (options.data / name).is_dir()]
    if missing:
        reason = f"not measured: no {', '.join(missing)} in {options.data}; give --data FOLDER"
        return Section("forecasts", remarks=[reason])
    section = Section("forecasts")
    _day_ahead(section, options.data)
    _extension(section, options.data, EVERY_H_WHOLE if options.whole else EVERY_H)
    _live(section, options.data)
    return section


def _day_ahead(section: Section, folder: Path) -> None:
    errors, plans, gains, highs = [], [], [], []
    for grid in grids(folder):
        print(f"  day ahead, {grid}", file=sys.stderr, flush=True)
        days, took_ms = _scored(day_ahead(folder, grid))
        raw, better, naive = (mape_percent(f, days.actual) for f in (days.provider, days.improved, days.yesterday))
        gains.append(better / raw)
        used = f"{days.corrected_days} of {len(days.actual)}"
        mapes = (f"{raw:.2f}", f"{better:.2f}", f"{naive:.2f}")
        errors.append([grid, *mapes, f"{days.inside_percent:.0f}", used, f"{took_ms:.0f}"])
        for length_h in LENGTHS_H:
            line, high = _plan(grid, days, length_h)
            plans.append(line)
            highs.append(high)
    section.tables += [
        Table(
            "One day ahead, September to December 2021: MAPE in %",
            ("grid", "provider", "corrected", "yesterday", "in 80 % interval", "days corrected", "ms each"),
            errors,
        ),
        Table(
            "Interruptible jobs in each day's 24 hours: share of the oracle's saving against running at once, in %",
            ("grid", "length", "provider", "corrected", "yesterday", "corrected less the better", "95 % interval"),
            plans,
        ),
    ]
    section.figures += [
        Figure("corrected MAPE, as a share of the provider's, worst grid", max(gains), at_most=0.999),
        Figure(
            "upper end of the interval of the plans' difference, worst grid and length",
            100.0 * min(highs),
            "points",
            at_least=0.0,
            note="below 0 the plans would be significantly worse",
        ),
    ]


def _scored(grid: DayAhead) -> tuple[Days, float]:
    began_s = time.monotonic()
    days = days_of(grid, range(FIRST_DAY, grid.days))
    return days, 1000 * (time.monotonic() - began_s) / len(days.actual)


def _plan(grid: str, days: Days, length_h: int) -> tuple[list[str], float]:
    """The line of one length, and the upper end of its interval."""
    shares = [share(f, days.actual, length_h) for f in (days.provider, days.improved, days.yesterday)]
    better = days.provider if shares[0] >= shares[2] else days.yesterday
    apart = difference(days.improved, better, days.actual, length_h)
    percents = (f"{100 * each:.2f}" for each in shares)
    interval = f"{100 * apart.low:+.2f} to {100 * apart.high:+.2f}"
    return [grid, f"{length_h} h", *percents, f"{100 * apart.mean:+.2f}", interval], apart.high


def _extension(section: Section, folder: Path, every_h: int) -> None:
    rows, ratios = [], []
    took_s, origins_all = 0.0, 0
    for name in zones(folder):
        print(f"  extension, {name}", file=sys.stderr, flush=True)
        zone = hourly(folder, name)
        origins = range(HISTORY_H, len(zone) - WEEK_H, every_h)
        began_s = time.monotonic()
        weeks = weeks_of(zone, origins)
        took_s, origins_all = took_s + time.monotonic() - began_s, origins_all + len(origins)
        varies = float(np.nanstd(zone.g_per_kwh) / np.nanmean(zone.g_per_kwh))
        line = [name, f"{varies:.2f}"]
        for ahead_h in (DAY_H, WEEK_H):
            said = (weeks.extended, weeks.yesterday, weeks.last_week)
            own, yesterday, last_week = (mape_percent(f[:, :ahead_h], weeks.actual[:, :ahead_h]) for f in said)
            line += [
                f"{own:.2f}",
                f"{yesterday:.2f}",
                f"{last_week:.2f}",
                f"{100 * weeks.inside[:, :ahead_h].mean():.0f}",
            ]
            if varies >= STEADY:
                ratios.append((ahead_h, own / min(yesterday, last_week)))
        rows.append(line)
    columns = ("extended", "yesterday", "last week", "in 80 %")
    section.tables.append(
        Table(
            f"Extension from six weeks of history, 2022, an origin every {every_h} h: MAPE in %, day and week ahead",
            ("zone", "variation", *(f"day: {name}" for name in columns), *(f"week: {name}" for name in columns)),
            rows,
        )
    )
    section.figures += [
        Figure(
            f"MAPE of extension, {words}, as a share of the better naive one's, worst zone",
            max(ratio for hours, ratio in ratios if hours == ahead_h),
            at_most=0.999,
            note=f"zones that vary by at least {STEADY:g}",
        )
        for ahead_h, words in ((DAY_H, "day ahead"), (WEEK_H, "week ahead"))
    ]
    section.figures.append(Figure("a week's extension of one zone", 1000 * took_s / origins_all, "ms", at_most=50))


def _live(section: Section, folder: Path) -> None:
    rows: list[Sequence[str]] = []
    invented = 0
    for path in sorted((folder / "live-2022").glob("*.csv")):
        records = live(folder, path.stem)
        series = series_of(records)
        assert series is not None
        recorded = {point.start for point in records}
        known = {series.time(int(hour)) for hour in np.flatnonzero(np.isfinite(series.g_per_kwh))}
        invented += len(known ^ recorded)
        rows.append([path.stem, *(str(n) for n in (len(records), len(recorded), len(series), len(known)))])
    columns = ("zone", "records", "hours recorded", "hours from first to last", "hours known")
    section.tables.append(Table("An irregular record, read", columns, rows))
    section.figures.append(Figure("hours invented or lost", invented, at_most=0))
