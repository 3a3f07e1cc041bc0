"""The forecast command: a zone's intensity now and to come, as a curve in the terminal or as JSON, and how good it was.
In: a zone. Out: the curve with its interval and its sources; with --backtest the accuracy by lead time.
It asks the zone's providers where the slot was not asked for yet, and changes nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from pathlib import Path

from jobs.spec import InputError, Unavailable, iso
from orchestrator.cli.desk import Desk, desk, print_json
from orchestrator.controller import utcnow
from orchestrator.predict.backtest import METHODS, Backtest, backtest
from orchestrator.refresh import HISTORY, Refresher
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.store import forecasts

_COLUMNS = (60, 140)
"""Fewest and most columns of the curve."""
_ROWS = 18
_TICKS = 6


def forecast(site_file: Path | None, zone: str, as_json: bool, how_good: bool) -> None:
    """A zone's intensity now and to come, or the accuracy of what was forecast before."""
    with desk(site_file) as at:
        if zone not in at.site.zones:
            raise InputError(f"ZONE: the site has no zone {zone!r}; it has {', '.join(at.site.zones)}")
        fault = Refresher(at.store, at.site).once([zone]).get(zone)
        with at.store.read() as session:
            found = forecasts.newest(session).get(zone)
        if found is None:
            raise (InputError if isinstance(fault, InputError) else Unavailable)(f"no forecast of {zone}: {fault}")
        if how_good:
            _backtest(at, found, as_json)
        elif as_json:
            print_json(forecasts.to_json(found))
        else:
            _show(found, utcnow())


def _backtest(at: Desk, found: Forecast, as_json: bool) -> None:
    now = utcnow()
    with at.store.read() as session:
        past = forecasts.history(session, found.zone, at.site.zones[found.zone].planning, now - HISTORY)
        earlier = forecasts.earlier(session, found.zone, found.provider)
    result = backtest(past, earlier, now)
    if not result.rows:
        raise InputError(
            f"--backtest: fewer than 48 hours of {found.zone} are known as measured; it needs a provider that tells "
            "the past, or time"
        )
    if as_json:
        rows = [asdict(row) for row in result.rows]
        print_json({"zone": found.zone, "provider": found.provider, "corrects": result.corrects, "rows": rows})
    else:
        _table(found, result, len(earlier))


def _table(found: Forecast, result: Backtest, earlier: int) -> None:
    """Error by lead time, a line each; below it how often the actual was inside the interval."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("lead, h", "hours", *METHODS, title=f"{found.zone} by {found.provider}: mean absolute error, percent")
    for leads in sorted({(row.first_h, row.last_h) for row in result.rows}):
        mine = {row.method: row for row in result.rows if (row.first_h, row.last_h) == leads}
        most = max(row.pairs for row in mine.values())
        cells = [_percent(mine[method].mape_percent, mine[method].coverage_percent) for method in METHODS]
        table.add_row(f"{leads[0]} to {leads[1]}", str(most), *cells)
    console.print(table)
    console.print("in brackets: how many of 100 hours were inside the 80 % interval")
    if result.corrects is None:
        console.print(f"forecasts are not corrected yet: earlier ones kept: {earlier}, too few to judge by")
    else:
        verdict = "are corrected: it helps here" if result.corrects else "stay as given: to correct them does not help"
        console.print(f"forecasts {verdict}, by {earlier} earlier ones")


def _percent(mape: float | None, coverage: float | None) -> str:
    if mape is None:
        return ""
    return f"{mape:.1f}" + ("" if coverage is None else f" ({coverage:.0f})")


def _show(found: Forecast, now: datetime) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    stale = f" [red](stale: fetched {iso(found.fetched_at)})[/red]" if found.stale else ""
    now_g = found.at(now)
    console.print(f"{found.zone}: {'unknown' if now_g is None else f'{now_g:.0f} g/kWh'} now, {found.signal}{stale}")
    for line in _sources(found, now):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    drawn = _curve(found, now, min(max(shutil.get_terminal_size().columns, _COLUMNS[0]), _COLUMNS[1]))
    print(drawn if console.is_terminal else _plain(drawn))


def _sources(found: Forecast, now: datetime) -> Iterator[str]:
    """Who says what, until when, and why there is nothing newer."""
    if found.fault is not None:
        yield f"no newer one: {found.fault}"
    for kind, group in groupby(found.points, key=lambda point: point.kind):
        points = list(group)
        who = "extended from the zone's history" if kind == "extended" else f"{kind} by {found.provider}"
        corrected = sum(point.given_g_per_kwh is not None for point in points)
        learned = ", corrected for its errors so far" if corrected else ""
        unknown = sum(point.g_per_kwh is None for point in points)
        holes = f", {unknown} slots unknown" if unknown else ""
        yield f"until {points[-1].end:%Y-%m-%d %H:%M}Z {who}{learned}{holes}"
    share = next((s.percent for s in found.renewable if s.start <= now < s.end), None)
    if share is not None:
        yield f"renewable share now {share:.0f} %, known until {found.renewable[-1].end:%Y-%m-%d %H:%M}Z"
    if found.note:
        yield found.note


def _curve(found: Forecast, now: datetime, columns: int) -> str:
    """The curve and its interval, drawn for a terminal so wide."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(columns, _ROWS)
    known = [point for point in found.points if point.g_per_kwh is not None]
    bounded = [point for point in known if point.low_g_per_kwh is not None and point.high_g_per_kwh is not None]
    if bounded:
        at = [_middle_s(point) for point in bounded]
        plotext.plot(at, [point.high_g_per_kwh for point in bounded], marker="dot", color="gray", label="80 % interval")
        plotext.plot(at, [point.low_g_per_kwh for point in bounded], marker="dot", color="gray")
    colours = {"measured": "white", "estimated": "white", "forecast": "green", "extended": "blue"}
    for kind, colour in colours.items():
        mine = [point for point in known if point.kind == kind]
        for run in _runs(mine):
            at = [edge.timestamp() for point in run for edge in (point.start, point.end)]
            values = [point.g_per_kwh for point in run for _ in range(2)]
            plotext.plot(at, values, marker="braille", color=colour, label=kind if run[0] is mine[0] else None)
    highest = max((point.high_g_per_kwh or point.g_per_kwh or 0.0 for point in known), default=0.0)
    plotext.ylim(0, 1.05 * highest or 1)
    ticks = _ticks(found.points[0].start, found.points[-1].end)
    plotext.xticks([tick.timestamp() for tick in ticks], [f"{tick:%a %H:%M}Z" for tick in ticks])
    plotext.ylabel("g/kWh")
    drawn: str = plotext.build()
    return drawn


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Stretches without a hole: no line is drawn across what is not known."""
    run: list[Point] = []
    for point in points:
        if run and run[-1].end != point.start:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _ticks(start: datetime, end: datetime) -> list[datetime]:
    return [start + n * (end - start) / (_TICKS - 1) for n in range(_TICKS)]


def _middle_s(point: Point) -> float:
    return (point.start + (point.end - point.start) / 2).timestamp()


def _plain(drawn: str) -> str:
    """Without colours, for a file or a pipe."""
    import plotext

    plain: str = plotext.uncolorize(drawn)
    return plain
