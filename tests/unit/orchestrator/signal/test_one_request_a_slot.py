"""Controller passes every minute, for a day: each provider is asked at most once a slot and zone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.http.session import Http
from tests.unit.orchestrator.loopback import Asked, ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import hour
from tests.unit.orchestrator.signal.failures import CASES, LIMITS, Slot, Speaker
from tests.unit.orchestrator.signal.speakers import SPEAKERS

HOURS, AHEAD = 24, timedelta(hours=3)
ALL = {**CASES, **SPEAKERS}


@pytest.mark.parametrize("speaker", ALL.values(), ids=ALL)
def test_a_day_of_passes_every_minute_asks_at_most_once_a_slot(
    tmp_path: Path, server: ProviderServer, speaker: Speaker
) -> None:
    speaker.prepare(server)
    step, first = timedelta(seconds=speaker.slot_s), hour()
    clock = [first]

    def answer(asked: Asked) -> Reply:
        """What the provider sees at the clock's time."""
        begun = (clock[0] - first) // step
        return speaker.reply([Slot(first + n * step, 100.0 + n) for n in range(begun, begun + AHEAD // step)])

    server.replies[speaker.path] = answer
    http = Http(tmp_path / "cache", clock=lambda: clock[0])
    provider = speaker.make(http, server.url, LIMITS)
    for minute in range(HOURS * 60):
        clock[0] = first + timedelta(minutes=minute, seconds=7)
        forecast = provider.forecast(speaker.zone, clock[0])
        assert forecast.points[0].start <= clock[0] < forecast.points[0].end
        assert forecast.at(clock[0]) == pytest.approx(100 + (clock[0] - first) // step, abs=0.5)
    http.close()
    assert server.count(speaker.path) <= HOURS * 3600 / speaker.slot_s
    assert server.count("login") <= HOURS * 60 / 29 + 1
