"""A login that zones, threads and processes share: renewed in time, after a refusal once, and never shown."""

from __future__ import annotations

import threading
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.spec import InputError
from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.sources import Signals
from orchestrator.signal.watttime import WattTime, make
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, Asked, ProviderServer, Reply
from tests.unit.orchestrator.signal.watttime import (
    AHEAD,
    EXPIRED,
    FORBIDDEN,
    PASSWORD,
    PAST,
    USER,
    ZONE,
    account,
    answer,
    now,
    provider,
    setup,
    slot,
    tokens,
)

__all__ = ["account", "provider", "tokens"]


@pytest.mark.parametrize("refusal", [EXPIRED, FORBIDDEN])
def test_a_token_that_has_expired_is_followed_by_one_login_and_one_more_try(
    provider: WattTime, server: ProviderServer, refusal: Reply
) -> None:
    server.on(AHEAD, refusal, Reply(answer([1000, 900])))
    assert len(provider.forecast(ZONE, now()).points) == 2
    assert [asked.path for asked in server.asked] == ["/login", "/v3/forecast", "/login", "/v3/forecast"]
    assert server.asked[3].headers["Authorization"] == "Bearer token-2"


@pytest.mark.parametrize(
    ("refusal", "reason", "words"),
    [
        (EXPIRED, "key", "the key in WT_USER and WT_PASSWORD is not accepted .401: UNAUTHORIZED; token expired"),
        (FORBIDDEN, "access", "the key in WT_USER and WT_PASSWORD has no access to this .403"),
    ],
)
def test_a_token_that_is_refused_again_is_a_refusal_after_one_login(
    provider: WattTime, server: ProviderServer, refusal: Reply, reason: str, words: str
) -> None:
    server.on(AHEAD, refusal)
    with pytest.raises(SignalRefused, match=words) as caught:
        provider.forecast(ZONE, now())
    assert caught.value.reason == reason
    assert (server.count("login"), server.count(AHEAD)) == (2, 2)


def test_a_token_is_renewed_before_its_half_hour_is_over(tmp_path: Path, server: ProviderServer) -> None:
    clock = [now()]
    http = Http(tmp_path / "cache", clock=lambda: clock[0])
    provider = make(setup(http, server))
    server.on(AHEAD, Reply(answer([1000] * 100)))
    logins = []
    for minutes in (0, 10, 25, 35, 50):
        clock[0] = now() + timedelta(minutes=minutes)
        provider.forecast(ZONE, clock[0])
        logins.append(server.count("login"))
    http.close()
    assert logins == [1, 1, 1, 2, 2]


def test_all_zones_and_threads_share_one_login(http: Http, server: ProviderServer) -> None:
    shared: dict[Any, Any] = {}
    zones = [f"REGION_{n}" for n in range(8)]
    server.replies[AHEAD] = lambda asked: Reply(answer([1000, 900], region=asked.params["region"]))
    providers = [make(setup(http, server, shared)) for _ in zones]
    found: list[Any] = []

    def ask(provider: WattTime, zone: str) -> None:
        found.append(provider.forecast(zone, now()).points)

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(providers, zones, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert (server.count("login"), server.count(AHEAD)) == (1, 8)


def test_when_the_token_expires_under_all_zones_they_share_the_new_login(http: Http, server: ProviderServer) -> None:
    shared: dict[Any, Any] = {}
    zones = ["A", "B", "C"]

    def reply(asked: Asked) -> Reply:
        good = asked.headers["Authorization"] == "Bearer token-2"
        return Reply(answer([1000, 900], region=asked.params["region"])) if good else EXPIRED

    server.replies[AHEAD] = reply
    for zone in zones:
        assert make(setup(http, server, shared)).forecast(zone, now()).zone == zone
    assert server.count("login") == 2


@pytest.mark.parametrize(
    ("reply", "kind", "reason", "words"),
    [
        (Reply({"error": "BAD"}, 401), SignalRefused, "key", "the key in WT_USER and WT_PASSWORD is not accepted"),
        (FORBIDDEN, SignalRefused, "key", "the key in WT_USER and WT_PASSWORD is not accepted .403"),
        (Reply({}, 429, {"Retry-After": "300"}), SignalOutage, "outage", "asks for fewer questions"),
        (Reply({"ok": 1}), SignalGarbled, "garbled", "answered a login without a token; check base_url"),
        (Reply({"token": "a\nb"}), SignalGarbled, "garbled", "without a token"),
        (Reply(body=b"<html>"), SignalGarbled, "garbled", "/login answered with .* not JSON"),
    ],
)
def test_a_login_that_fails_is_told_once_and_nothing_else_is_asked(
    provider: WattTime, server: ProviderServer, reply: Reply, kind: type[SignalFault], reason: str, words: str
) -> None:
    provider._login._limits = QUICK
    server.on("login", reply)
    with pytest.raises(kind, match=words) as caught:
        provider.forecast(ZONE, now())
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"watttime: zone {ZONE}: ")
    assert [asked.path for asked in server.asked] == ["/login"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user_env": None}, "providers.watttime.user_env: is missing; name the environment variable"),
        ({"password_env": None}, "providers.watttime.password_env: is missing; name the environment variable"),
        ({"password_env": "NO_SUCH"}, "password_env: NO_SUCH is not set; export it"),
    ],
)
def test_a_site_file_without_an_account_is_refused(
    http: Http, server: ProviderServer, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        make(setup(http, server, **settings))


def test_neither_password_nor_token_is_in_any_file_message_or_log(
    cache_folder: Path, server: ProviderServer, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    settings = ProviderSite(base_url=server.url, user_env="WT_USER", password_env="WT_PASSWORD")
    signals = Signals({ZONE: ZoneSite(provider=["watttime"])}, {"watttime": settings}, cache_folder, hold_off_s=0)
    server.on(AHEAD, Reply(answer([1000, 900])))
    signals.forecast(ZONE)
    server.on(PAST, Reply({"error": "token-1 is unknown"}, 400))
    with pytest.raises(SignalRefused) as caught:
        signals.measured(ZONE, slot(-3), slot(0))
    basic = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    files = [path for path in cache_folder.rglob("*") if path.is_file()]
    assert files
    for secret in ("token-1", basic):
        assert secret not in str(caught.value)
        assert secret not in caplog.text
        assert not any(secret.encode() in path.read_bytes() for path in files)
    assert not any(PASSWORD.encode() in path.read_bytes() for path in files)


def test_a_login_that_repeats_the_password_hides_it(provider: WattTime, server: ProviderServer) -> None:
    server.on("login", Reply({"error": f"{PASSWORD} is not the password of {USER}"}, 401))
    with pytest.raises(SignalRefused, match=r"\*\*\* is not the password"):
        provider.forecast(ZONE, now())
