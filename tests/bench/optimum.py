"""Plans with a perfect forecast against the published best slots and windows of recorded grids, as figures.
In: the folder of the recorded grids. Out: a row for each length and slack, with the greatest difference of its grids.
The sums are `tests.bench.oracle`'s; a sample of the starts unless the whole is asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.oracle import Row, rows

GOAL_PERCENT = 0.01
SAMPLES = {"window": 37, "slots": 37, "optimal": 37}
"""Of each so many starts one is planned."""


def measure(options: Options) -> Section:
    """Plan by the three policies that are exact at their task."""
    if not (options.data / "hourly-2022").is_dir():
        reason = f"not measured: no recorded grids in {options.data}; give --data FOLDER"
        return Section("oracle", remarks=[reason])
    table: list[list[str]] = []
    figures = []
    for policy, sampled in SAMPLES.items():
        every = 1 if options.whole else sampled
        print(f"  {policy}, one start in {every}", file=sys.stderr, flush=True)
        began_s = time.monotonic()
        found = list(rows(options.data, policy, every))
        table += _lines(policy, found)
        starts = sum(row.starts for row in found)
        note = f"{starts} plans, {1000 * (time.monotonic() - began_s) / starts:.2f} ms each"
        worst = 100 * max(abs(row.difference) for row in found)
        figures.append(Figure(f"greatest difference, {policy}", worst, "%", at_most=GOAL_PERCENT, note=note))
    columns = ("policy", "length", "slack", "grids", "starts", "planned g", "oracle g", "greatest difference")
    return Section("oracle", figures, [Table("One kilowatt, perfect forecast, no pause costs", columns, table)])


def _lines(policy: str, found: Sequence[Row]) -> list[list[str]]:
    """One line a length and slack, summed over the grids."""
    lines = []
    for length_h, slack_h in sorted({(row.length_h, row.slack_h) for row in found}):
        these = [row for row in found if (row.length_h, row.slack_h) == (length_h, slack_h)]
        worst = max((row.difference for row in these), key=abs)
        sums = (sum(row.planned_g for row in these), sum(row.oracle_g for row in these))
        grids, starts = len(these), sum(row.starts for row in these)
        lines.append(
            [
                policy,
                f"{length_h} h",
                f"{slack_h} h",
                str(grids),
                str(starts),
                *(f"{g:.2f}" for g in sums),
                f"{worst:+.1e}",
            ]
        )
    return lines
