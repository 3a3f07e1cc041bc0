"""What every provider of a carbon signal is: a name, a kind of signal, a forecast and what was measured.
In: the provider's own name of a zone, and times in UTC. Out: a Forecast, or measured points.
One module a provider implements it; the chain of a zone's providers asks it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from orchestrator.signal.forecast import Forecast, Point, Signal


class Provider(Protocol):
    """A source of intensities. Its methods raise SignalFault, or InputError where the user's file is wrong."""

    @property
    def name(self) -> str:
        """The name that site files use."""

    @property
    def signal(self) -> Signal:
        """Whether its intensities are average or marginal."""

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh, as far as the provider sees."""

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Points in [start, end) that are no forecast; empty where the provider has or shows none."""
