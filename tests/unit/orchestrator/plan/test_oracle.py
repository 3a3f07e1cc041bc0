"""With a perfect forecast and no pause costs a plan is the published best slots, or window, of recorded grids.
In: the recorded grids (LOWTIDE_SHARED_DATA, else ../shared/data beside the repository). Out: pass or fail.

A plan takes about a millisecond and the table asks for 259 k of them, so one row is summed whole with `slots`, and all
rows are sampled for each policy against the cheapest hours themselves. `python -m tests.bench.oracle` prints all.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.oracle import cheapest_g, cheapest_window_g, curve_of, planned_g, rows

DATA = Path(os.environ.get("LOWTIDE_SHARED_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(
    not (DATA / "hourly-2022").is_dir(), reason="the recorded grids are not here; set LOWTIDE_SHARED_DATA"
)


@pytest.mark.parametrize(("policy", "every"), [("window", 397), ("slots", 397), ("optimal", 1009)])
def test_every_grid_length_and_slack_costs_its_cheapest_hours(policy: str, every: int) -> None:
    for row in rows(DATA, policy, every):
        assert row.planned_g == pytest.approx(row.oracle_g, rel=1e-4), row


def test_a_job_each_hour_of_a_year_sums_to_the_published_figure() -> None:
    curve = curve_of(DATA, "DE")
    planned = sum(planned_g(curve, hour, 24, 24, "slots") for hour in range(8711))
    assert planned == pytest.approx(87351889.81, rel=1e-4)


def test_the_cheapest_hours_themselves_sum_to_the_published_figure() -> None:
    curve = curve_of(DATA, "ZA")
    assert sum(cheapest_g(curve, hour, 24, 24) for hour in range(8711)) == pytest.approx(143465717.04, rel=1e-9)


def test_the_cheapest_hours_in_a_row_sum_to_the_published_figure() -> None:
    curve = curve_of(DATA, "ZA")
    assert sum(cheapest_window_g(curve, hour, 24, 24) for hour in range(8711)) == pytest.approx(145976167.73, rel=1e-9)
