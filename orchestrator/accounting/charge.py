"""Charging energy by a zone's grid: which intensity applied at each moment, and the grams of joules by it.
In: all that was said of a zone's intensities, revisions and other providers included. Out: a Curve, and Charges by it.
`ledger` charges what a job drew, `run_now` what the counterfactual would have.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import heappop, heappush
from itertools import pairwise
from math import fsum

from orchestrator.accounting.account import Intensity, ZoneFacts
from orchestrator.accounting.pue import Pue, parts_of
from orchestrator.signal.forecast import Kind, Signal

J_PER_KWH = 3_600_000
"""Joules in a kilowatt hour: energy is turned into grams here and nowhere else."""
_RANK_OF_KIND: Mapping[Kind, int] = {"measured": 2, "estimated": 1, "forecast": 0}
"""What charges where several intensities overlap; `extended` ones are made up for planning and charge nothing."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Joules and the grams of their known share: `known_j` has an intensity, `measured_j` a measured one."""

    energy_j: float = 0.0
    known_j: float = 0.0
    measured_j: float = 0.0
    operational_g: float = 0.0
    forecast_j: float = 0.0
    """Of the known ones those that only a forecast charges yet."""

    @property
    def emissions_g(self) -> float | None:
        """Grams of the known share; None where there is energy and none of it has an intensity."""
        return None if self.energy_j and not self.known_j else self.operational_g

    @staticmethod
    def total(charges: Sequence[Charge]) -> Charge:
        """The sum, whatever the order."""
        return Charge(
            fsum(charge.energy_j for charge in charges),
            fsum(charge.known_j for charge in charges),
            fsum(charge.measured_j for charge in charges),
            fsum(charge.operational_g for charge in charges),
            fsum(charge.forecast_j for charge in charges),
        )


@dataclass(frozen=True)
class Curve:
    """One zone's intensities in order and without overlap, for charging."""

    pieces: tuple[Intensity, ...]

    @staticmethod
    def of(zone: str, intensities: Iterable[Intensity], facts: ZoneFacts | None = None, first: bool = False) -> Curve:
        """The curve of `zone`: of what was said of a moment the best charges, whatever the order.

        What is known is better than what is not, then average than marginal, measured than estimated than forecast,
        a provider than those after it in `charged_by`, and what was fetched later. Marginal intensities charge only
        where the zone has no average one at all or, with `mix`, none at that moment. Extended ones charge nothing.
        `first` gives what was known first instead: of a provider the earliest fetched, whatever its kind.
        """
        facts = facts or ZoneFacts()
        usable = [i for i in intensities if i.zone == zone and i.end > i.start and i.kind in _RANK_OF_KIND]
        if not facts.mix and any(i.signal == "average" for i in usable):
            usable = [i for i in usable if i.signal == "average"]
        return Curve(tuple(_without_overlap(usable, facts.charged_by, first)))

    def overlaps(self, start: datetime, end: datetime) -> list[tuple[Intensity, float]]:
        """The known pieces in [start, end) with their share of it (0 to 1); of an empty one, the piece at `start`."""
        length_s = (end - start).total_seconds()
        found: list[tuple[Intensity, float]] = []
        index = max(0, bisect_right(self.pieces, start, key=lambda piece: piece.start) - 1)
        for position in range(index, len(self.pieces)):
            piece = self.pieces[position]
            if piece.start >= end and piece.start > start:
                break
            if length_s <= 0:
                share = float(piece.start <= start < piece.end)
            else:
                share = (min(end, piece.end) - max(start, piece.start)).total_seconds() / length_s
            if share > 0 and piece.g_per_kwh is not None:
                found.append((piece, share))
        return found

    def charge(self, start: datetime, end: datetime, energy_j: float, pue: Pue) -> Charge:
        """Joules spread evenly over [start, end): grams = J / 3.6e6 x PUE x g/kWh, by overlap, of the known share."""
        parts = parts_of(pue, start, end)
        if len(parts) > 1:
            length_s = (end - start).total_seconds()
            return Charge.total(
                [self.charge(a, b, energy_j * ((b - a).total_seconds() / length_s), at) for a, b, at in parts]
            )
        found = self.overlaps(start, end)
        known = fsum(share for _, share in found)
        measured = fsum(share for piece, share in found if piece.kind == "measured")
        forecast = fsum(share for piece, share in found if piece.kind == "forecast")
        kwh = energy_j / J_PER_KWH
        grams = fsum(kwh * parts[0][2] * share * (piece.g_per_kwh or 0.0) for piece, share in found)
        return Charge(
            energy_j,
            energy_j * min(1.0, known),
            energy_j * min(1.0, measured),
            grams,
            energy_j * min(1.0, forecast),
        )


def _without_overlap(intensities: list[Intensity], charged_by: Sequence[str], first: bool) -> list[Intensity]:
    """The best intensity of every moment: a sweep over all edges with a heap of those that still apply."""
    place = {provider: -index for index, provider in enumerate(charged_by)}

    def worth(position: int) -> tuple[bool, bool, int, int, float, int]:
        given = intensities[position]
        known, is_average = given.g_per_kwh is not None, given.signal == "average"
        fetched = given.fetched_at.timestamp() if given.fetched_at is not None else 0.0
        rank = 0 if first else _RANK_OF_KIND[given.kind]
        since = -fetched if first else fetched
        return known, is_average, rank, place.get(given.provider, -len(place)), since, position

    order = sorted(range(len(intensities)), key=lambda position: intensities[position].start)
    edges = sorted({edge for given in intensities for edge in (given.start, given.end)})
    heap: list[tuple[tuple[float, ...], int]] = []
    pieces: list[Intensity] = []
    taken = 0
    for start, end in pairwise(edges):
        while taken < len(order) and intensities[order[taken]].start <= start:
            heappush(heap, (tuple(-float(part) for part in worth(order[taken])), order[taken]))
            taken += 1
        while heap and intensities[heap[0][1]].end <= start:
            heappop(heap)
        if heap:
            best = intensities[heap[0][1]]
            before = pieces[-1] if pieces else None
            if before is not None and before.end == start and _same_value(before, best):
                start = pieces.pop().start
            pieces.append(replace(best, start=start, end=end))
    return pieces


def _same_value(one: Intensity, other: Intensity) -> bool:
    return _what(one) == _what(other)


def _what(said: Intensity) -> tuple[float | None, Kind, str, Signal]:
    return said.g_per_kwh, said.kind, said.provider, said.signal
