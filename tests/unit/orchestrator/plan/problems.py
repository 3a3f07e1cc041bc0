"""Small problems to plan, and the exhaustive search that plans are checked against.
In: lengths and prices of cells. Out: Problems; the least grams of any choice of cells.
The tests beside it use both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from orchestrator.plan import Current, OperatingPoint, PauseCost, Problem, Stretch, ZoneOption

T0 = datetime(2022, 3, 1, tzinfo=timezone.utc)
ONE_KW = OperatingPoint(workers=1, steps_per_s=1.0, power_w=1000.0)


def at(duration_s: float) -> datetime:
    return T0 + timedelta(seconds=duration_s)


def curve(
    prices: Sequence[float | None],
    slot_s: float = 3600.0,
    start: datetime = T0,
    shares: Sequence[float | None] | None = None,
) -> tuple[Stretch, ...]:
    step = timedelta(seconds=slot_s)
    given = shares if shares is not None else [None] * len(prices)
    return tuple(
        Stretch(start + i * step, start + (i + 1) * step, price, share)
        for i, (price, share) in enumerate(zip(prices, given, strict=True))
    )


def problem(
    zones: dict[str, Sequence[float | None]],
    work_s: float,
    *,
    slot_s: float = 3600.0,
    now_s: float = 0.0,
    deadline_s: float | None = None,
    points: tuple[OperatingPoint, ...] = (ONE_KW,),
    pause: tuple[float, float] = (0.0, 0.0),
    windows_s: Sequence[tuple[float, float]] | None = None,
    shares: dict[str, Sequence[float | None]] | None = None,
    **more: object,
) -> Problem:
    """A problem with one price (and share) a slot from T0 on; work in seconds of the one-kilowatt worker."""
    end_s = max(len(prices) for prices in zones.values()) * slot_s if deadline_s is None else deadline_s
    return Problem(
        now=at(now_s),
        deadline=at(end_s),
        work_steps=work_s,
        zones={
            name: ZoneOption(curve(prices, slot_s, shares=(shares or {}).get(name)), points)
            for name, prices in zones.items()
        },
        slot_s=slot_s,
        pause=PauseCost(*pause),
        windows=None if windows_s is None else tuple((at(a), at(b)) for a, b in windows_s),
        **more,  # type: ignore[arg-type]
    )


def exhaustive_g(
    asked: Problem, lengths_s: Sequence[float], prices: Sequence[Sequence[float]], is_open: Sequence[bool]
) -> float | None:
    """Least grams over every choice of a way (or none) for each cell, with one cell used in part, early or late.

    Written without the planner's code: `prices` are g/kWh by zone and cell, cells begin at `asked.now`.
    """
    ways = [(z, p) for z, zone in enumerate(asked.zones.values()) for p in zone.points]
    names, pues = list(asked.zones), [zone.pue for zone in asked.zones.values()]
    best: float | None = None
    choices = [range(-1, len(ways)) if open_ else range(-1, 0) for open_ in is_open]
    for chosen in itertools.product(*choices):
        for part in (cell for cell, way in enumerate(chosen) if way >= 0):
            for early in (True, False):
                work, part_g, full_g, rate = 0.0, 0.0, 0.0, ways[chosen[part]][1].steps_per_s
                last_zone, running = asked.last_zone, None
                is_first, lasts = True, list[list[float]]()
                if asked.current is not None:
                    last_zone, is_first = asked.current.zone, False
                    running = next(
                        (w for w, (z, p) in enumerate(ways) if (names[z], p.workers) == _key(asked.current)), None
                    )
                elif asked.started:
                    is_first = False
                for cell, way in enumerate(chosen):
                    if way < 0:
                        running = None
                        continue
                    if cell == part and not early:
                        running = None
                    zone, point = ways[way]
                    if running != way:
                        moved = last_zone is not None and last_zone != names[zone]
                        cost_s = 0.0 if is_first else asked.pause.resume_s + (asked.pause.move_s if moved else 0.0)
                        work -= point.steps_per_s * cost_s
                        lasts.append([cost_s, 0.0, 0.0])
                    running, last_zone, is_first = way, names[zone], False
                    g_per_s = point.power_w * pues[zone] * prices[zone][cell] / 3.6e6
                    if cell == part:
                        part_g = g_per_s
                        if lasts:
                            lasts[-1][2] += 1
                        if early:
                            running = None
                    else:
                        work += point.steps_per_s * lengths_s[cell]
                        full_g += g_per_s * lengths_s[cell]
                        if lasts:
                            lasts[-1][1] += lengths_s[cell]
                used_s = (asked.work_steps - work) / rate
                # What ends within its own start has moved nothing, unless the job ends with it.
                moved = all(cost_s <= full_s + parts * used_s + 1e-9 for cost_s, full_s, parts in lasts[:-1])
                if moved and -1e-9 <= used_s <= lengths_s[part] + 1e-9:
                    grams = full_g + part_g * used_s
                    best = grams if best is None else min(best, grams)
    return best


def _key(current: Current) -> tuple[str, int]:
    return current.zone, current.workers
