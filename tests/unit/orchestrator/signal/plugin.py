"""Providers as a user would write them, found by entry point as those of an installed package are.
In: the folder of the package's metadata. Out: provider names that a site file can use.
The tests of chains, of admission and of the ledger's sources use them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from orchestrator.http.faults import SignalOutage
from orchestrator.signal.chain import Factor
from orchestrator.signal.forecast import Forecast, Point, Share, Signal
from orchestrator.signal.provider import Setup

HOUR = timedelta(hours=1)

OUT = {"down"}
"""The providers that do not answer."""


class Plugged:
    """A grid of one value for so many hours ahead; of none while it is out."""

    def __init__(self, setup: Setup, signal: Signal, factor: Factor | None, hours: int, percent: float | None):
        self.name = setup.name
        self.signal: Signal = signal
        self.factor = factor
        self.has_renewable = percent is not None
        self._hours, self._percent = hours, percent

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        if self.name in OUT:
            raise SignalOutage(self.name, zone_name, "is down")
        slots = [_hour(now) + n * HOUR for n in range(self._hours)]
        points = tuple(Point(at, at + HOUR, 100.0) for at in slots)
        shares = tuple(Share(at, at + HOUR, self._percent) for at in slots if self._percent is not None)
        return Forecast(zone_name, self.name, self.signal, points, now, factor=self.factor, renewable=shares)

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        if self.name in OUT:
            raise SignalOutage(self.name, zone_name, "is down")
        return (Point(_hour(start), _hour(start) + HOUR, 90.0, "measured"),)


def _hour(at: datetime) -> datetime:
    return at.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)


def _make(
    signal: Signal, factor: Factor | None = None, hours: int = 24, percent: float | None = None
) -> Callable[[Setup], Plugged]:
    return lambda setup: Plugged(setup, signal, factor, hours, percent)


average = _make("average")
marginal = _make("marginal")
lifecycle = _make("average", "lifecycle")
direct = _make("average", "direct")
renewable = _make("average", percent=55.0)
present = _make("average", hours=1)
down = _make("average")

NAMES = ("average", "marginal", "lifecycle", "direct", "renewable", "present", "down")


def plug_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the providers of this module known, as the installation of a package would."""
    info = folder / "own_signals-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-signals\nVersion: 1.0\n")
    lines = "".join(f"{name} = {__name__}:{name}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[lowtide.signals]\n{lines}")
    monkeypatch.syspath_prepend(folder)
