"""Every provider against every failure: what comes of it is told in one line, and the next good answer is used."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.http.faults import SignalFault
from orchestrator.http.session import Http
from tests.unit.orchestrator.loopback import ProviderServer
from tests.unit.orchestrator.signal import failures
from tests.unit.orchestrator.signal.failures import FAILURES, LIMITS, Failure, Speaker
from tests.unit.orchestrator.signal.speakers import DIFFERS, SPEAKERS

CASES = {**failures.CASES, **SPEAKERS}
PAIRS = [
    pytest.param(speaker, DIFFERS.get((provider, name), failure), id=f"{provider}: {name}")
    for provider, speaker in CASES.items()
    for name, failure in FAILURES.items()
    if failure.of(speaker)
]


@pytest.mark.parametrize(("speaker", "failure"), PAIRS)
def test_what_comes_of_a_failure(http: Http, server: ProviderServer, speaker: Speaker, failure: Failure) -> None:
    speaker.prepare(server)
    server.on(speaker.path, *failure.replies(speaker))
    provider = speaker.make(http, server.url, failure.limits)
    now = datetime.now(timezone.utc)
    if failure.fault is None:
        forecast = provider.forecast(speaker.zone, now)
        starts = [slot.start for slot in speaker.good()]
        found = tuple(forecast.at(start) for start in starts if isinstance(start, datetime))
        assert found == pytest.approx(failure.values, abs=0.5)
        assert not any(point.end <= now for point in forecast.points)
        assert failure.asked in (None, server.count(speaker.path))
        return
    with pytest.raises(failure.fault, match=failure.words or None) as caught:
        provider.forecast(speaker.zone, now)
    told = str(caught.value)
    assert told.startswith(f"{provider.name}: zone {speaker.zone}: ")
    assert "\n" not in told
    assert len(told) < 400
    assert failure.reason in (None, caught.value.reason)
    assert failure.asked in (None, server.count(speaker.path))
    if failure.waits_s is not None:
        assert caught.value.retry_after_s == pytest.approx(failure.waits_s, abs=3700)
    server.on(speaker.path, speaker.reply(speaker.good()))
    later = speaker.make(http, server.url, LIMITS)  # another process, that waits longer
    assert later.forecast(speaker.zone, now).at(now) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("speaker", CASES.values(), ids=CASES)
def test_nobody_there_is_an_outage(http: Http, server: ProviderServer, speaker: Speaker) -> None:
    server.stop()
    with pytest.raises(SignalFault, match="is not reachable .*; check the network and base_url") as caught:
        speaker.make(http, server.url, LIMITS).forecast(speaker.zone, datetime.now(timezone.utc))
    assert caught.value.reason == "outage"


@pytest.mark.parametrize("speaker", CASES.values(), ids=CASES)
def test_points_are_half_open_and_in_order(http: Http, server: ProviderServer, speaker: Speaker) -> None:
    speaker.prepare(server)
    server.on(speaker.path, speaker.reply(speaker.good()))
    points = speaker.make(http, server.url, LIMITS).forecast(speaker.zone, datetime.now(timezone.utc)).points
    assert all(before.end <= after.start for before, after in zip(points, points[1:], strict=False))
    assert {point.end - point.start for point in points} == {timedelta(seconds=speaker.slot_s)}
    assert all(point.start.tzinfo is timezone.utc for point in points)
