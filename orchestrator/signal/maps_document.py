"""Electricity Maps' documents, v3 and v4, read whole column by whole column.
In: the parsed JSON of a forecast, history, past-range or latest answer. Out: Rows, and until when they are fresh.
The provider electricity_maps makes points and shares of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.signal.forecast import Kind, Point, Share, modal_gap_s, ordered, slots
from orchestrator.signal.reading import Reading, fresh_until

GRANULARITIES = {300.0: "5_minutes", 900.0: "15_minutes", 3600.0: "hourly"}
"""The provider's words for the slots that it offers, by their seconds."""

_SECONDS = {word: slot_s for slot_s, word in GRANULARITIES.items()}
_LISTS = ("forecast", "history", "data")
_SHARES = ("value", "renewableEnergy", "renewablePercentage")


@dataclass(frozen=True)
class Rows:
    """The columns of one answer."""

    starts: Sequence[datetime]
    values: Sequence[float | None]
    """g/kWh, or percent of shares."""
    kinds: Sequence[Kind]
    slot_s: float
    note: str | None = None
    """What the answer says of itself, such as that it is replayed."""

    def points(self) -> tuple[Point, ...]:
        """Intensities as points, each as long as a slot."""
        return slots(self.starts, self.values, self.slot_s, self.kinds)

    def shares(self) -> tuple[Share, ...]:
        """Percentages as shares, each as long as a slot."""
        length = timedelta(seconds=self.slot_s)
        return ordered(
            Share(start, start + length, value) for start, value in zip(self.starts, self.values, strict=True)
        )


class Document:
    """Reads the answers to questions about one zone, with the emission factors and slots that were asked for."""

    def __init__(self, reading: Reading, factor: str, slot_s: float, clock: Callable[[], datetime]):
        self._reading = reading
        self._factor = factor
        self._slot_s = slot_s
        self._clock = clock

    def forecast(self, document: Any) -> tuple[Rows, datetime]:
        """A forecast of intensities; SignalGarbled where it is empty or over."""
        rows, fresh = self._read(document, self._intensities)
        self._reaches_now(rows)
        return rows, fresh

    def shares(self, document: Any) -> tuple[Rows, datetime]:
        """A forecast of the renewable share; SignalGarbled where it is empty or over."""
        rows, fresh = self._read(document, self._percents)
        self._reaches_now(rows)
        return rows, fresh

    def measured(self, document: Any) -> tuple[Rows, datetime]:
        """What was measured or estimated; it may be empty."""
        return self._read(document, self._intensities, _measured_kinds)

    def _read(
        self,
        document: Any,
        values: Callable[[list[Any], list[datetime]], list[float | None]],
        kinds: Callable[[list[Any]], list[Kind]] | None = None,
    ) -> tuple[Rows, datetime]:
        reading, envelope = self._reading, self._reading.mapping(document)
        if envelope.get("zone") != reading.zone:
            raise reading.garbled(f"answered for zone {str(envelope.get('zone'))[:40]!r}; check the zone's name")
        found = [envelope[name] for name in _LISTS if isinstance(envelope.get(name), list)]
        rows = found[0] if found else [envelope]
        starts = reading.times(reading.column(rows, "datetime"))
        self._check_factor(envelope, rows)
        read = values(rows, starts)
        slot_s = modal_gap_s(starts) or _SECONDS.get(str(envelope.get("temporalGranularity")), self._slot_s)
        said = envelope.get("_disclaimer")
        known: list[Kind] = kinds(rows) if kinds else ["forecast"] * len(rows)
        note = str(said)[:200] if said else None
        return Rows(starts, read, known, slot_s, note), fresh_until(self._clock(), slot_s)

    def _intensities(self, rows: list[Any], starts: list[datetime]) -> list[float | None]:
        return self._reading.intensities(self._reading.column(rows, "carbonIntensity"), starts)

    def _percents(self, rows: list[Any], starts: list[datetime]) -> list[float | None]:
        name = next((name for name in _SHARES if rows and name in rows[0]), _SHARES[0])
        return self._reading.percents(self._reading.column(rows, name), starts)

    def _check_factor(self, envelope: dict[str, Any], rows: list[Any]) -> None:
        said = [row["emissionFactorType"] for row in (envelope, *rows) if "emissionFactorType" in row]
        wrong = next((factor for factor in said if factor != self._factor), None)
        if wrong is not None:
            raise self._reading.garbled(f"sent {str(wrong)[:40]!r} factors; {self._factor!r} was asked for")

    def _reaches_now(self, rows: Rows) -> None:
        if not rows.starts:
            raise self._reading.garbled("sent an empty forecast; try later")
        if max(rows.starts) + timedelta(seconds=rows.slot_s) <= self._clock():
            raise self._reading.garbled("sent a forecast that ends before now; try later")


def _measured_kinds(rows: list[Any]) -> list[Kind]:
    return ["estimated" if row.get("isEstimated") else "measured" for row in rows]
