"""Plans with a perfect forecast against the published best slots, or the best single window, of ten recorded grids.
In: the folder of the recorded grids (hourly-2022/). Out: a table, one row a zone, length and slack.
`python -m tests.bench.oracle FOLDER [policy] [every]`; the unit tests check a part of it.

One job starts each hour, one unit of power wide; its slots must cost what the sum of its cheapest hours costs. `slots`
plans all 259 k starts; `optimal` gives the same figures, and a sample of its starts (every so many) is compared with
the cheapest hours themselves. `window` is held against the cheapest hours in a row.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from orchestrator.plan import OperatingPoint, Problem, Stretch, ZoneOption, plan

HOUR = timedelta(hours=1)
ONE_KW = OperatingPoint(workers=1, steps_per_s=1.0, power_w=1000.0)


@dataclass(frozen=True)
class Row:
    """One line of oracle.csv beside what the planner gives, in g for one kilowatt."""

    zone: str
    length_h: int
    slack_h: int
    starts: int
    planned_g: float
    oracle_g: float

    @property
    def difference(self) -> float:
        """Relative to the oracle."""
        return self.planned_g / self.oracle_g - 1.0


def curve_of(folder: Path, zone: str) -> list[Stretch]:
    """The hours of a recorded grid."""
    with (folder / "hourly-2022" / f"{zone}.csv").open(encoding="utf-8", newline="") as lines:
        rows = [(_utc(row["start_utc"]), float(row["g_per_kwh"])) for row in csv.DictReader(lines)]
    return [Stretch(start, start + HOUR, value) for start, value in rows]


def planned_g(curve: Sequence[Stretch], hour: int, length_h: int, slack_h: int, policy: str) -> float:
    """Grams of one job that starts at an hour of the curve and knows what comes."""
    ahead = tuple(curve[hour : hour + length_h + slack_h])
    asked = Problem(
        now=ahead[0].start,
        deadline=ahead[-1].end,
        work_steps=length_h * 3600.0,
        zones={"zone": ZoneOption(ahead, (ONE_KW,))},
        slot_s=3600.0,
    )
    return plan(asked, policy).emissions_g


def cheapest_g(curve: Sequence[Stretch], hour: int, length_h: int, slack_h: int) -> float:
    """The same without a planner: the sum of the cheapest hours."""
    return float(sum(sorted(part.g_per_kwh or 0.0 for part in curve[hour : hour + length_h + slack_h])[:length_h]))


def cheapest_window_g(curve: Sequence[Stretch], hour: int, length_h: int, slack_h: int) -> float:
    """The sum of the cheapest hours in a row."""
    prices = [part.g_per_kwh or 0.0 for part in curve[hour : hour + length_h + slack_h]]
    sums = np.cumsum([0.0, *prices])
    return float((sums[length_h:] - sums[:-length_h]).min())


def rows(folder: Path, policy: str = "slots", every: int = 1) -> Iterator[Row]:
    """Each line of oracle.csv; with `every` above 1 its oracle is the cheapest hours of the starts that are planned."""
    with (folder / "hourly-2022" / "oracle.csv").open(encoding="utf-8", newline="") as lines:
        wanted = list(csv.DictReader(lines))
    curves = {zone: curve_of(folder, zone) for zone in {row["zone"] for row in wanted}}
    for row in wanted:
        zone, length_h, slack_h = row["zone"], int(row["length_h"]), int(row["slack_h"])
        starts = range(0, int(row["starts"]), every)
        planned = [planned_g(curves[zone], hour, length_h, slack_h, policy) for hour in starts]
        in_a_row = policy == "window"
        oracle_g = float(row["best_window_sum" if in_a_row else "best_slots_sum"])
        if every > 1:
            least_g = cheapest_window_g if in_a_row else cheapest_g
            oracle_g = sum(least_g(curves[zone], hour, length_h, slack_h) for hour in starts)
        yield Row(zone, length_h, slack_h, len(starts), float(np.sum(planned)), oracle_g)


def run(folder: Path, policy: str = "slots", every: int = 1) -> float:
    """Print the table and return the greatest relative difference."""
    began = time.monotonic()
    worst = 0.0
    print(f"{'zone':14s} {'length':>6s} {'slack':>6s} {'starts':>6s} {policy + ' g':>16s} {'oracle g':>16s} difference")
    for row in rows(folder, policy, every):
        worst = max(worst, abs(row.difference))
        print(
            f"{row.zone:14s} {row.length_h:5d}h {row.slack_h:5d}h {row.starts:6d} {row.planned_g:16.2f} "
            f"{row.oracle_g:16.2f} {row.difference:+.2e}",
            flush=True,
        )
    print(f"greatest difference {worst:.2e}, in {time.monotonic() - began:.0f} s")
    return worst


def _utc(text: str) -> datetime:
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


if __name__ == "__main__":
    run(Path(sys.argv[1]), *sys.argv[2:3], *(int(text) for text in sys.argv[3:4]))
