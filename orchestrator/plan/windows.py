"""Where users let a job run: cron expressions with a length, as UTC intervals.
In: `carbon.windows` such as `0 22 * * * 8h`, and a span. Out: merged half-open intervals.
Submission validates with it; the controller puts what it gives into the Problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

from croniter import croniter
from croniter.croniter import CroniterError

from jobs.spec import InputError, seconds

Interval = tuple[datetime, datetime]

_EXAMPLE = "write five cron fields and a length, e.g. 0 22 * * * 8h"


def windows(texts: Sequence[str], start: datetime, end: datetime) -> tuple[Interval, ...]:
    """The UTC intervals of all `texts` within [start, end), merged and cut to it.

    Cron fields are read in UTC. A window that opened before `start` and is still open counts.
    Raises InputError that names `carbon.windows` and the fix where a text cannot be read.
    """
    start, end = start.astimezone(timezone.utc), end.astimezone(timezone.utc)
    found = [interval for text in texts for interval in _occurrences(text, start, end)]
    return merged((max(a, start), min(b, end)) for a, b in found)


def merged(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Sorted intervals of which none is empty, overlaps or touches another."""
    result: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)


def _occurrences(text: str, start: datetime, end: datetime) -> list[Interval]:
    expression, length = _read(text)
    # One second earlier, as croniter gives what comes strictly after its start.
    opens = croniter(expression, start - length - timedelta(seconds=1), ret_type=datetime)
    result: list[Interval] = []
    while True:
        try:
            at = opens.get_next()
        except CroniterError:  # an expression that never comes, e.g. 30 February
            raise InputError(f"carbon.windows: {text!r} never opens; {_EXAMPLE}") from None
        if at >= end:
            return result
        result.append((at, at + length))


def _read(text: str) -> tuple[str, timedelta]:
    fields = text.split()
    if len(fields) != 6:
        raise InputError(f"carbon.windows: {text!r} has {len(fields)} fields, not 6; {_EXAMPLE}")
    expression = " ".join(fields[:5])
    try:
        length_s = seconds(fields[5])
    except ValueError as fault:
        raise InputError(f"carbon.windows: {text!r}: {fault}") from None
    if not croniter.is_valid(expression):
        raise InputError(f"carbon.windows: {expression!r} is not a cron expression; {_EXAMPLE}")
    return expression, timedelta(seconds=length_s)
