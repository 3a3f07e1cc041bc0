"""Answers that are no JSON, that are nothing, or that hold a secret, through the same door with the same care."""

from __future__ import annotations

import traceback
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.nothing import NO_CONTENT
from orchestrator.http.refusal import Asker, Secret
from orchestrator.http.session import Http
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply

ASKER = Asker("watttime", "CAISO_NORTH", "WATTTIME_PASSWORD")
PASSWORD = "pass-51c0ffee"
TOKEN = "tok-93fa1c7e"
BASIC = Secret.basic("me", PASSWORD)


def fresh(document: Any) -> tuple[Any, datetime]:
    return document, datetime.now(timezone.utc) + timedelta(minutes=5)


def get(http: Http, server: ProviderServer, **more: Any) -> Any:
    return http.get(f"{server.url}/thing", {}, fresh, ASKER, **{"limits": QUICK, **more}).value


def login(http: Http, server: ProviderServer, **more: Any) -> Any:
    return get(http, server, secrets={"Authorization": BASIC}, keep=False, **more)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_an_answer_that_is_no_json_comes_as_bytes_and_is_kept(http: Http, server: ProviderServer) -> None:
    body = b"start_utc,g_per_kwh\n2026-01-01T00:00Z,1\n"
    server.on("thing", Reply(body=body, headers={"Content-Type": "text/csv"}))
    assert [get(http, server, as_bytes=True, accept="text/csv") for _ in range(3)] == [body] * 3
    assert server.count("thing") == 1
    assert server.asked[0].headers["Accept"] == "text/csv"


def test_bytes_are_bounded_as_json_is(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply(body=b"x" * 3000))
    with pytest.raises(SignalGarbled, match="sends more than"):
        get(http, server, as_bytes=True, limits=Limits(body_bytes=1000, failed_s=0))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_no_content_is_told_from_an_empty_document(http: Http, server: ProviderServer, as_bytes: bool) -> None:
    server.on("thing", Reply(body=b"", status=204))
    assert [get(http, server, as_bytes=as_bytes) for _ in range(2)] == [NO_CONTENT] * 2
    assert server.count("thing") == 1


@pytest.mark.parametrize("document", [{}, [], None, 0])
def test_an_empty_document_reaches_the_reader(http: Http, server: ProviderServer, document: Any) -> None:
    server.on("thing", Reply(document))
    assert get(http, server) == document


def test_a_login_asks_with_http_basic_each_time_and_is_never_written_down(
    http: Http, cache_folder: Path, server: ProviderServer
) -> None:
    server.on("thing", Reply({"token": TOKEN}))
    assert [login(http, server) for _ in range(2)] == [{"token": TOKEN}] * 2
    assert server.count("thing") == 2
    assert server.asked[0].headers["Authorization"] == BASIC == "Basic bWU6cGFzcy01MWMwZmZlZQ=="
    http.close()
    for secret in (PASSWORD, TOKEN, "bWU6cGFzcy01MWMwZmZlZQ"):
        assert secret.encode() not in everything_in(cache_folder)


def test_a_bearer_token_reaches_the_provider_and_no_file(
    http: Http, cache_folder: Path, server: ProviderServer
) -> None:
    server.on("thing", Reply({"a": 1}), Reply({"error": f"token {TOKEN} is busy"}, 503))
    bearer = {"Authorization": Secret.bearer(TOKEN)}
    assert get(http, server, secrets=bearer) == {"a": 1}
    with pytest.raises(SignalOutage, match=r"token \*\*\* is busy"):
        http.get(f"{server.url}/thing", {"other": "1"}, fresh, ASKER, secrets=bearer, limits=QUICK)
    assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    http.close()
    assert b"/thing" in everything_in(cache_folder)
    assert TOKEN.encode() not in everything_in(cache_folder)


HASTE = Limits(connect_s=1, read_s=0.3, wait_s=0.2, total_s=0.5, retries=1, backoff_s=0.01, failed_s=0)
FAILURES = {
    "a refusal": Reply({"error": "no"}, 401),
    "a page": Reply(body=b"<html>"),
    "an outage": Reply({"error": "no"}, 503),
    "a reset": Reply(reset=True),
    "silence": Reply(silence_s=5),
    "a partial body": Reply(body=b'{"a":', headers={"Content-Length": "100"}),
}


@pytest.mark.parametrize("reply", FAILURES.values(), ids=FAILURES)
def test_no_traceback_with_its_variables_shows_a_secret(http: Http, server: ProviderServer, reply: Reply) -> None:
    server.on("thing", reply)
    with pytest.raises(SignalFault) as caught:
        login(http, server, limits=HASTE)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "question = " in shown
    assert "During handling" not in shown
    for secret in (PASSWORD, "bWU6cGFzcy01MWMwZmZlZQ"):
        assert secret not in shown


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_no_fault_or_log_shows_a_secret_that_the_provider_repeats(
    http: Http, server: ProviderServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.on("thing", Reply({"error": f"{PASSWORD} is wrong, and so is {BASIC}"}, status))
    with pytest.raises(SignalFault, match=r"\*\*\* is wrong, and so is \*\*\*") as caught:
        login(http, server, limits=HASTE)
    for secret in (PASSWORD, "bWU6cGFzcy01MWMwZmZlZQ"):
        assert secret not in f"{caught.value} {caplog.text}"


def test_a_password_with_a_line_break_is_refused_without_showing_it(http: Http, server: ProviderServer) -> None:
    with pytest.raises(SignalRefused, match="stray characters") as caught:
        get(http, server, secrets={"Authorization": Secret(f"Bearer {TOKEN}\r\nX: y")})
    assert TOKEN not in str(caught.value)


def test_marks_tell_keys_apart_and_give_none_away() -> None:
    marks = {Secret(text).mark for text in (TOKEN, PASSWORD, "")}
    assert len(marks) == 3
    assert {len(mark) for mark in marks} == {8}
