"""One account's rows: energy added interval by interval, cut where the grid's figures or its own source change.
In: adjacent intervals with joules or None. Out: closed pieces, adjacent, none across a slot edge or a minute.
The meter turns the pieces into rows and appends them to the spool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.api import Source

MINUTE_US = 60_000_000
"""Rows end at UTC minutes at the latest, so none is longer than 60 s and a host's rows are written together."""


@dataclass(frozen=True)
class Drawn:
    """Energy of one interval in J, None where any of it could not be read, and where the figure comes from."""

    energy_j: float | None
    source: Source


@dataclass(frozen=True)
class Piece:
    """Energy in [start_us, end_us), microseconds since the UNIX epoch; None where any of it could not be read."""

    start_us: int
    end_us: int
    energy_j: float | None
    source: Source


class OpenRow:
    """What one device draws for one owner, from the last cut on."""

    def __init__(
        self, start_us: int, end_us: int | None = None, energy_j: float | None = 0.0, source: Source = "estimated"
    ) -> None:
        self._start_us = start_us
        self._end_us = start_us if end_us is None else end_us
        self._energy_j = energy_j
        self._source = source

    def open_part(self) -> Piece:
        """What is not cut yet, from which `OpenRow(*values)` goes on."""
        return Piece(self._start_us, self._end_us, self._energy_j, self._source)

    def add(self, end_us: int, drawn: Drawn, slot_us: int) -> Iterator[Piece]:
        """Go on to `end_us` with the energy drawn since the last addition; yields the pieces that this closes.

        Energy spreads evenly over its interval where an edge falls inside. Where readability or the source changes
        the piece before it is closed, so that a gap spoils nothing but its own seconds.
        """
        energy_j = drawn.energy_j
        if end_us <= self._end_us:
            if end_us < self._end_us:  # the wall clock jumped back: rows go on from where it stands now
                yield from self.cut()
                self._start_us = self._end_us = end_us
            self._extend(self._end_us, energy_j)
            return
        if (energy_j is None) != (self._energy_j is None) or drawn.source != self._source:
            yield from self.cut()
            # What came in no time at all (self._energy_j of an empty row) goes along with the next readable piece.
            self._energy_j = None if energy_j is None else self._energy_j or 0.0
            self._source = drawn.source
        left_j = energy_j
        while (edge_us := next_edge_us(self._end_us, slot_us)) <= end_us:
            part_j = None if left_j is None else left_j * (edge_us - self._end_us) / (end_us - self._end_us)
            left_j = None if left_j is None or part_j is None else left_j - part_j
            self._extend(edge_us, part_j)
            yield from self.cut()
            if edge_us == end_us:
                return
        self._extend(end_us, left_j)

    def cut(self) -> Iterator[Piece]:
        """Close the piece in progress, if it has any length."""
        if self._end_us > self._start_us:
            yield Piece(self._start_us, self._end_us, self._energy_j, self._source)
            self._start_us = self._end_us
            self._energy_j = None if self._energy_j is None else 0.0

    def skip(self, to_us: int) -> Iterator[Piece]:
        """Close the piece in progress and go on from `to_us`: what is drawn until then is another account's."""
        yield from self.cut()
        self._start_us = self._end_us = to_us

    def _extend(self, end_us: int, energy_j: float | None) -> None:
        self._end_us = end_us
        if self._energy_j is not None and energy_j is not None:
            self._energy_j += energy_j


def next_edge_us(after_us: int, slot_us: int) -> int:
    """The first slot edge or UTC minute after `after_us`."""
    return min((after_us // slot_us + 1) * slot_us, (after_us // MINUTE_US + 1) * MINUTE_US)
