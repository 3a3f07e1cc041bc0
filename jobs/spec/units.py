"""Quantities that people write in YAML, as numbers with their unit in the field's name.
In: `20m`, `36h`, `5 kg`, `1..4`. Out: seconds, grams, a WorkerRange; written back in the same form.
The models of the spec and of the site file use them as field types.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_GRAMS = {"mg": 0.001, "g": 1.0, "kg": 1000.0, "t": 1_000_000.0}
_QUANTITY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")


def _quantity(value: object, units: dict[str, float], example: str) -> float:
    text = value if isinstance(value, str) else ""
    match = _QUANTITY.match(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{value!r} is not an amount with its unit; write e.g. {example} (units: {', '.join(units)})")
    return float(match[1]) * units[match[2]]


def seconds(value: object) -> float:
    """Seconds in a duration such as `90s`, `20m`, `36h` or `7d`; ValueError names the fix."""
    duration_s = _quantity(value, _SECONDS, "20m or 36h")
    if duration_s <= 0:
        raise ValueError(f"{value!r} is not above zero; write e.g. 20m")
    return duration_s


def grams(value: object) -> float:
    """Grams in a mass such as `800 g` or `5 kg`; ValueError names the fix."""
    return _quantity(value, _GRAMS, "5 kg")


def utc(value: object) -> datetime:
    """A UTC time from ISO 8601 text or a datetime; a time without a zone is refused with ValueError."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO 8601 time; write e.g. 2026-03-01T06:00:00Z") from None
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a time; write e.g. 2026-03-01T06:00:00Z")
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} says no time zone; add Z for UTC")
    return value.astimezone(timezone.utc)


def iso(at: datetime) -> str:
    """ISO 8601 UTC text with `Z`, to the second, or to the millisecond where there is a fraction."""
    at = at.astimezone(timezone.utc)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def _seconds_or_utc(value: object) -> float | datetime:
    if isinstance(value, str) and _QUANTITY.match(value):
        return seconds(value)
    if isinstance(value, (str, datetime)):
        return utc(value)
    raise ValueError(f"{value!r} is neither a duration nor a time; write e.g. 36h or 2026-03-01T06:00:00Z")


def _write_seconds(value: float) -> str:
    return f"{value:.12g}s"


def _write_moment(value: float | datetime) -> str:
    return iso(value) if isinstance(value, datetime) else _write_seconds(value)


DurationS = Annotated[float, BeforeValidator(seconds), PlainSerializer(_write_seconds, return_type=str)]
MassG = Annotated[float, BeforeValidator(grams), PlainSerializer(lambda g: f"{g:.12g} g", return_type=str)]
Utc = Annotated[datetime, BeforeValidator(utc), PlainSerializer(iso, return_type=str)]
Moment = Annotated[float | datetime, BeforeValidator(_seconds_or_utc), PlainSerializer(_write_moment, return_type=str)]


def worker_range(value: Any) -> tuple[int, int]:
    """Lowest and highest worker count from `2` or `1..4`; ValueError names the fix."""
    if isinstance(value, int) and not isinstance(value, bool):
        low = high = value
    else:
        match = re.match(r"^\s*(\d+)\s*\.\.\s*(\d+)\s*$", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{value!r} is not a worker count; write e.g. 2 or 1..4")
        low, high = int(match[1]), int(match[2])
    if low < 1 or high < low:
        raise ValueError(f"{value!r} is not a worker count; the first must be at least 1 and not above the second")
    return low, high


def _write_range(value: tuple[int, int]) -> int | str:
    return value[0] if value[0] == value[1] else f"{value[0]}..{value[1]}"


WorkerRange = Annotated[tuple[int, int], BeforeValidator(worker_range), PlainSerializer(_write_range)]
