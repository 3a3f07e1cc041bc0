"""Cron expressions with a length become merged UTC intervals, or an error that names the fix.
In: texts as in `carbon.windows`. Out: pass or fail.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jobs.spec import InputError
from orchestrator.plan import windows

NOON = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)  # a Monday


def hours(texts: list[str], days: float = 2.0, start: datetime = NOON) -> list[tuple[float, float]]:
    found = windows(texts, start, start + timedelta(days=days))
    return [((a - start) / timedelta(hours=1), (b - start) / timedelta(hours=1)) for a, b in found]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0 22 * * * 8h"], [(10, 18), (34, 42)]),
        (["0 22 * * * 15h"], [(0, 1), (10, 25), (34, 48)]),  # one is open already, one is cut at the end
        (["0 22 * * * 2h", "0 0 * * * 2h"], [(10, 14), (34, 38)]),  # touching ones are one
        (["0 22 * * * 4h", "0 23 * * * 1h"], [(10, 14), (34, 38)]),  # one within another
        (["0 12 * * * 30m"], [(0, 0.5), (24, 24.5)]),  # opens just at the start; not at the end
        (["0 11 * * * 1h"], [(23, 24), (47, 48)]),  # closed just at the start
        (["0 0 * * 2 24h"], [(12, 36)]),  # Tuesdays
        (["0 0 * * * 24h"], [(0, 48)]),
        ([], []),
    ],
)
def test_intervals_are_merged_and_cut_to_the_span(texts: list[str], expected: list[tuple[float, float]]) -> None:
    assert hours(texts) == expected


def test_fields_are_read_in_utc_whatever_zone_the_span_is_in() -> None:
    berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert windows(["0 22 * * * 8h"], berlin, berlin + timedelta(days=1)) == (
        (NOON + timedelta(hours=10), NOON + timedelta(hours=18)),
    )


@pytest.mark.parametrize(
    "text", ["0 22 * * *", "0 22 * * * 8", "0 25 * * * 8h", "at night 8h", "0 22 * * * * 8h", "", "0 0 30 2 * 1h"]
)
def test_what_cannot_be_read_is_refused_with_field_and_fix(text: str) -> None:
    with pytest.raises(InputError, match=r"carbon\.windows: .*(8h|36h)") as refused:
        windows([text], NOON, NOON + timedelta(days=2))
    assert "\n" not in str(refused.value)
