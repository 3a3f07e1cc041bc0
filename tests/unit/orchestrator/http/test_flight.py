"""One request for all processes that ask the same: whoever comes first asks, dies or fails, and the others go by it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.flight import Flight
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker, Secret
from orchestrator.http.session import Http
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import electricity_maps, forecast_of

SPAWN = multiprocessing.get_context("spawn")
ONCE = Limits(connect_s=2, read_s=20, wait_s=2, total_s=20, retries=0)
ASKER = Asker("electricity_maps", "DE", "EM_KEY")


def fresh(document: Any) -> tuple[Any, datetime]:
    return document, datetime.now(timezone.utc) + timedelta(minutes=5)


def asking(folder: Path, url: str, together: Barrier, results: Any) -> None:
    """One process: it asks when all are there, and tells what came of it."""
    http = Http(folder)
    together.wait(300)
    try:
        provider = electricity_maps(http, f"{url}/v4", limits=ONCE)
        results.put(provider.forecast("DE", datetime.now(timezone.utc)).points[0].g_per_kwh)
    except SignalFault as fault:
        results.put(f"{type(fault).__name__} {fault}")
    finally:
        http.close()


class Crowd:
    """Processes that ask the same server at once, with one cache."""

    def __init__(self, folder: Path, url: str, count: int):
        self._together = SPAWN.Barrier(count)
        self._results = SPAWN.Queue()
        arguments = (folder, url, self._together, self._results)
        self.processes = [SPAWN.Process(target=asking, args=arguments) for _ in range(count)]
        for process in self.processes:
            process.start()

    def results(self, count: int) -> list[Any]:
        found = [self._results.get(timeout=300) for _ in range(count)]
        for process in self.processes:
            process.join(300)
        self._results.close()
        return found


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_ten_processes_that_ask_at_once_are_one_request(cache_folder: Path, server: ProviderServer) -> None:
    server.on("carbon-intensity/forecast", Reply(forecast_of([77, 80]), silence_s=0.5))
    assert Crowd(cache_folder, server.url, 10).results(10) == [77.0] * 10
    assert server.count("carbon-intensity/forecast") == 1


def test_processes_that_waited_for_a_failure_do_not_ask_again(cache_folder: Path, server: ProviderServer) -> None:
    server.on("carbon-intensity/forecast", Reply({"error": "over capacity"}, 503, silence_s=0.5))
    told = Crowd(cache_folder, server.url, 4).results(4)
    assert {text.split(" (")[0] for text in told} == {
        "SignalOutage electricity_maps: zone DE: the provider is out of order"
    }
    assert server.count("carbon-intensity/forecast") == 1


def test_when_the_process_that_asks_is_killed_another_asks(cache_folder: Path, server: ProviderServer) -> None:
    server.on("carbon-intensity/forecast", Reply(silence_s=60), Reply(forecast_of([77, 80])))
    crowd = Crowd(cache_folder, server.url, 1)
    wait_for(lambda: server.count("carbon-intensity/forecast") == 1)
    followers = Crowd(cache_folder, server.url, 2)
    time.sleep(1.5)  # by now they wait for the first, and if not, they still must not wait for it later
    os.kill(crowd.processes[0].pid or 0, signal.SIGKILL)
    assert followers.results(2) == [77.0, 77.0]
    assert server.count("carbon-intensity/forecast") == 2


def test_whoever_waits_too_long_for_another_asks_as_well(cache_folder: Path, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}))
    http = Http(cache_folder)
    held = Flight(cache_folder / "flights")
    key = http._cache.key(requests.Request("GET", f"{server.url}/v4/thing").prepare())
    with held.turn(key, 1):
        limits = Limits(total_s=0.3)
        assert http.get(f"{server.url}/v4/thing", {}, fresh, ASKER, limits=limits).value == {"a": 1}
    http.close()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.at = datetime.now(timezone.utc)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Pair:
    """Two sessions on one cache, as two processes have them, and one clock."""

    def __init__(self, folder: Path, server: ProviderServer):
        self.clock = Clock()
        self.first, self.second = Http(folder, self.clock), Http(folder, self.clock)
        self._url = f"{server.url}/v4/thing"

    def ask(self, http: Http, zone: str = "DE", limits: Limits = ONCE) -> Any:
        return http.get(self._url, {"zone": zone}, fresh, Asker("electricity_maps", zone), limits=limits).value

    def close(self) -> None:
        self.first.close()
        self.second.close()


@pytest.fixture
def pair(cache_folder: Path, server: ProviderServer) -> Any:
    pair = Pair(cache_folder, server)
    yield pair
    pair.close()


def test_a_failure_is_known_to_other_processes_for_a_few_seconds(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply({"error": "over capacity"}, 503), Reply({"a": 1}))
    for http in (pair.first, pair.second):
        with pytest.raises(SignalOutage, match="503: over capacity"):
            pair.ask(http)
        pair.clock.forward(2)
    assert server.count("thing") == 1
    pair.clock.forward(ONCE.failed_s)
    assert pair.ask(pair.second) == {"a": 1}


def test_an_answer_that_cannot_be_read_is_not_fetched_by_each_process(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply(body=b"<html>"))
    for http in (pair.first, pair.second):
        with pytest.raises(SignalGarbled, match="not JSON"):
            pair.ask(http)
        pair.clock.forward(1)
    assert server.count("thing") == 1


def test_all_processes_leave_a_provider_alone_as_long_as_it_asks(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply({"error": "slow down"}, 429, {"Retry-After": "600"}), Reply({"a": 1}))
    with pytest.raises(SignalOutage):
        pair.ask(pair.first)
    pair.clock.forward(590)
    with pytest.raises(SignalOutage, match="slow down") as caught:
        pair.ask(pair.second)
    assert caught.value.retry_after_s == pytest.approx(10)
    assert server.count("thing") == 1
    pair.clock.forward(11)
    assert pair.ask(pair.second) == {"a": 1}


def test_a_provider_that_asks_for_fewer_questions_is_asked_none_of_another_zone_either(
    pair: Pair, server: ProviderServer
) -> None:
    server.on("thing", Reply({"error": "slow down"}, 429, {"Retry-After": "600"}), Reply({"a": 1}))
    with pytest.raises(SignalOutage):
        pair.ask(pair.first)
    for zone in ("FR", "GB"):
        with pytest.raises(SignalOutage, match=f"zone {zone}: .*slow down"):
            pair.ask(pair.second, zone=zone)
    assert server.count("thing") == 1
    pair.clock.forward(601)
    assert pair.ask(pair.second, zone="FR") == {"a": 1}


def test_an_outage_of_one_zone_is_none_of_another(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply({"error": "no data"}, 503, {"Retry-After": "600"}), Reply({"a": 1}))
    with pytest.raises(SignalOutage):
        pair.ask(pair.first)
    assert pair.ask(pair.second, zone="FR") == {"a": 1}


def test_a_wish_to_be_left_alone_for_days_is_kept_for_an_hour(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply({}, 503, {"Retry-After": "999999"}), Reply({"a": 1}))
    with pytest.raises(SignalOutage):
        pair.ask(pair.first)
    pair.clock.forward(3601)
    assert pair.ask(pair.second) == {"a": 1}


def test_a_refusal_is_not_held_against_whoever_comes_later_with_another_key(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply({"error": "Invalid auth-token"}, 401), Reply({"a": 1}))
    with pytest.raises(SignalRefused):
        pair.ask(pair.first)
    assert pair.ask(pair.second) == {"a": 1}


def test_accounts_whose_answers_differ_are_kept_apart(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}), Reply({"a": 2}))
    url = f"{server.url}/v4/thing"
    for whose, expected in (("one", 1), ("two", 2), ("one", 1)):
        assert pair.first.get(url, {}, fresh, ASKER, whose=whose).value == {"a": expected}


def test_a_folder_that_cannot_be_written_to_stops_no_question(tmp_path: Path, server: ProviderServer) -> None:
    (tmp_path / "file").write_text("no folder")
    server.on("thing", Reply({"a": 1}), Reply({"error": "busy"}, 503))
    http = Http(tmp_path / "file" / "cache")
    url = f"{server.url}/v4/thing"
    assert http.get(url, {}, fresh, ASKER, limits=ONCE).value == {"a": 1}
    with pytest.raises(SignalOutage, match="busy"):
        http.get(url, {"other": "1"}, fresh, ASKER, limits=ONCE)
    http.close()


def test_a_server_that_does_not_answer_is_not_waited_for_again_by_each_zone(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply(reset=True), Reply(reset=True), Reply({"a": 1}))
    for zone in ("DE", "FR", "GB"):
        with pytest.raises(SignalOutage, match=f"zone {zone}: .*is not reachable"):
            pair.ask(pair.second, zone, replace(ONCE, retries=1, backoff_s=0.01))
    assert server.count("thing") == 2
    pair.clock.forward(ONCE.failed_s + 1)
    assert pair.ask(pair.second, zone="FR") == {"a": 1}


def test_a_question_that_is_put_only_once_tells_nothing_of_others(pair: Pair, server: ProviderServer) -> None:
    server.on("thing", Reply(reset=True), Reply({"a": 1}))
    with pytest.raises(SignalOutage, match="is not reachable"):
        pair.ask(pair.first)
    assert pair.ask(pair.second, zone="FR") == {"a": 1}


def test_the_locks_and_notes_are_a_bounded_number_of_files_and_hold_no_key(
    cache_folder: Path, server: ProviderServer
) -> None:
    server.on("thing", Reply({"error": "token tok-1 is busy"}, 503))
    http = Http(cache_folder)
    secrets = {"auth-token": Secret("tok-1")}
    for number in range(50):
        with pytest.raises(SignalOutage):
            http.get(f"{server.url}/v4/thing", {"n": str(number)}, fresh, ASKER, secrets=secrets, limits=ONCE)
    http.close()
    files = [path for path in (cache_folder / "flights").iterdir()]
    assert {path.suffix for path in files} == {".lock", ".json"}
    assert {len(path.stem) for path in files if path.suffix == ".lock"} == {4}
    assert not any(b"tok-1" in path.read_bytes() for path in files)
