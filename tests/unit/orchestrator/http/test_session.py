"""The door to HTTP against a real server: bounds, patience, cache, refusals and secrets."""

from __future__ import annotations

import email.utils
import threading
import time
import traceback
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.refusal import Asker, Secret
from orchestrator.http.session import Http, Limits
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply

ASKER = Asker("electricity_maps", "DE", "MY_KEY")
TOKEN = "tok-93fa1c7e"


def fresh(document: Any) -> tuple[Any, datetime]:
    return document, datetime.now(timezone.utc) + timedelta(minutes=5)


def stale(document: Any) -> tuple[Any, datetime]:
    return document, datetime.now(timezone.utc)


def ask(http: Http, server: ProviderServer, limits: Limits = QUICK, read: Any = stale, token: str = TOKEN) -> Any:
    url = f"{server.url}/v4/thing"
    secrets = {"auth-token": Secret(token)}
    return http.get(url, {"zone": "DE"}, read, ASKER, secrets=secrets, limits=limits).value


def files_hold(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_asks_with_its_name_and_key_and_returns_what_the_reader_makes(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}))
    assert ask(http, server) == {"a": 1}
    assert server.asked[0].headers["User-Agent"].startswith("lowtide/")
    assert server.asked[0].headers["auth-token"] == TOKEN
    assert server.asked[0].params == {"zone": "DE"}


def test_many_questions_while_an_answer_is_fresh_are_one_request(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}))
    assert [ask(http, server, read=fresh) for _ in range(5)] == [{"a": 1}] * 5
    assert server.count("thing") == 1


def test_a_stale_answer_is_asked_for_again(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}), Reply({"a": 2}))
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.3)
    assert ask(http, server, read=lambda document: (document, soon)) == {"a": 1}
    time.sleep(0.35)
    assert ask(http, server) == {"a": 2}


def test_questions_at_once_are_one_request(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}, silence_s=0.2))
    threads = [threading.Thread(target=ask, args=(http, server, QUICK, fresh)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.count("thing") == 1


def test_another_process_finds_the_cached_answer_and_when_it_came(cache_folder: Path, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}))
    first, second = Http(cache_folder), Http(cache_folder)
    before = datetime.now(timezone.utc)
    ask(first, server, read=fresh)
    after = datetime.now(timezone.utc)
    answer = second.get(f"{server.url}/v4/thing", {"zone": "DE"}, fresh, ASKER)
    first.close()
    second.close()
    assert server.count("thing") == 1
    assert answer.value == {"a": 1}
    assert before <= answer.fetched_at <= after


def test_the_key_is_in_no_file_of_the_cache(http: Http, cache_folder: Path, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}, headers={"Set-Cookie": "session=cookie-77"}))
    ask(http, server, read=fresh)
    http.close()
    assert files_hold(cache_folder, "/v4/thing")
    assert not files_hold(cache_folder, TOKEN)
    assert not files_hold(cache_folder, "cookie-77")


def test_a_corrupt_cache_is_done_without(tmp_path: Path, server: ProviderServer, caplog: Any) -> None:
    (tmp_path / "http.sqlite").write_bytes(b"this is no database" * 100)
    server.on("thing", Reply({"a": 1}))
    http = Http(tmp_path)
    assert ask(http, server, read=fresh) == {"a": 1}
    http.close()
    assert "cache" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_tries_again_after_a_failure_that_may_pass(http: Http, server: ProviderServer, status: int) -> None:
    server.on("thing", Reply({"error": "later"}, status), Reply({"error": "later"}, status), Reply({"a": 1}))
    assert ask(http, server) == {"a": 1}
    assert server.count("thing") == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_gives_up_after_its_retries(http: Http, server: ProviderServer, status: int) -> None:
    server.on("thing", Reply({"error": "over capacity"}, status))
    with pytest.raises(SignalOutage, match=f"electricity_maps: zone DE: .*{status}: over capacity"):
        ask(http, server)
    assert server.count("thing") == 1 + QUICK.retries


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 302])
def test_a_refusal_is_not_asked_again(http: Http, server: ProviderServer, status: int) -> None:
    server.on("thing", Reply({"message": "no"}, status, headers={"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(SignalRefused):
        ask(http, server)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "document", "reason", "words"),
    [
        (401, {"error": "Invalid auth-token"}, "key", "MY_KEY is not accepted .401: Invalid auth-token.; put a valid"),
        (403, {"message": "no plan"}, "access", "MY_KEY has no access .* ask for a plan"),
        (404, {"error": "No recent data"}, "zone", "No recent data.*check the zone's name"),
        (400, {"status": "error", "message": "Bad horizon"}, "request", "Bad horizon.*check base_url"),
        (400, {"error": {"code": "400", "message": "Nested"}}, "request", "Nested"),
        (422, {"error": "A", "message": "B"}, "request", "A; B"),
    ],
)
def test_a_refusal_names_provider_zone_and_remedy(
    http: Http, server: ProviderServer, status: int, document: Any, reason: str, words: str
) -> None:
    server.on("thing", Reply(document, status))
    with pytest.raises(SignalRefused, match=f"^electricity_maps: zone DE: .*{words}") as caught:
        ask(http, server)
    assert caught.value.reason == reason
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"error code: 1010", b"<html><title>403</title></html>", b"\xff\xfe", b""])
def test_a_refusal_that_is_not_json_is_still_told(http: Http, server: ProviderServer, body: bytes) -> None:
    server.on("thing", Reply(body=body, status=403))
    with pytest.raises(SignalRefused, match="no access") as caught:
        ask(http, server)
    assert "<" not in str(caught.value)


def test_waits_as_long_as_retry_after_says_in_seconds(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({}, 429, {"Retry-After": "1"}), Reply({"a": 1}))
    began = time.monotonic()
    assert ask(http, server) == {"a": 1}
    assert time.monotonic() - began >= 1


def test_waits_until_the_date_that_retry_after_says(http: Http, server: ProviderServer) -> None:
    until = time.time() + 2
    date = email.utils.formatdate(until, usegmt=True)
    server.on("thing", Reply({}, 503, {"Retry-After": date}), Reply({"a": 1}))
    assert ask(http, server, Limits(connect_s=2, read_s=2, wait_s=5, total_s=8)) == {"a": 1}
    assert time.time() >= int(until)


@pytest.mark.parametrize(
    "retry_after", ["3600", email.utils.formatdate(time.time() + 7200, usegmt=True)], ids=["seconds", "date"]
)
def test_a_longer_wait_than_allowed_is_an_outage_at_once(http: Http, server: ProviderServer, retry_after: str) -> None:
    server.on("thing", Reply({}, 429, {"Retry-After": retry_after}))
    with pytest.raises(SignalOutage, match="asks to wait") as caught:
        ask(http, server)
    assert server.count("thing") == 1
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 3000


@pytest.mark.parametrize("retry_after", ["soon", "-3", "9" * 400])
def test_a_retry_after_that_makes_no_sense_breaks_nothing(http: Http, server: ProviderServer, retry_after: str) -> None:
    server.on("thing", Reply({"error": "busy"}, 503, {"Retry-After": retry_after}))
    with pytest.raises(SignalOutage, match="busy"):
        ask(http, server)


def test_a_silent_provider_is_an_outage_in_bounded_time(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}, silence_s=30))
    limits = Limits(connect_s=1, read_s=0.3, wait_s=1, total_s=1, backoff_s=0.01)
    with pytest.raises(SignalOutage, match="did not answer in time; raise providers.electricity_maps.timeout"):
        ask(http, server, limits)


def test_a_body_that_drips_is_an_outage_in_bounded_time(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply(body=b" " * 2000, drip_s=0.05))
    with pytest.raises(SignalOutage, match="did not answer in time"):
        ask(http, server, Limits(connect_s=1, read_s=1, wait_s=1, total_s=0.5))


def test_a_body_cut_short_is_an_outage(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply(body=b'{"a":', headers={"Content-Length": "100"}))
    with pytest.raises(SignalOutage):
        ask(http, server)


def test_a_body_beyond_the_bound_is_refused(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply(body=b"[" + b" " * 3_000_000))
    with pytest.raises(SignalGarbled, match="more than 1 MiB"):
        ask(http, server, Limits(body_bytes=1024 * 1024))


def test_nobody_there_is_an_outage_that_names_the_address(http: Http, server: ProviderServer) -> None:
    server.stop()
    with pytest.raises(SignalOutage, match=rf"{server.url}/v4/thing is not reachable .*; check the network"):
        ask(http, server)


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"{", b"\xff"])
def test_an_answer_that_is_not_json_is_told_and_not_cached(http: Http, server: ProviderServer, body: bytes) -> None:
    server.on("thing", Reply(body=body, headers={"Content-Type": "text/html"}))
    for _ in range(2):
        with pytest.raises(SignalGarbled, match="answered with text/html that is not JSON; check base_url"):
            ask(http, server, read=fresh)
    assert server.count("thing") == 2


def test_what_the_reader_refuses_is_not_cached(http: Http, server: ProviderServer) -> None:
    server.on("thing", Reply({"a": 1}))

    def refuse(document: Any) -> tuple[Any, datetime]:
        raise SignalGarbled("electricity_maps", "DE", "no")

    with pytest.raises(SignalGarbled):
        ask(http, server, read=refuse)
    assert ask(http, server, read=fresh) == {"a": 1}
    assert server.count("thing") == 2


def test_a_redirect_does_not_carry_the_key_elsewhere(http: Http, server: ProviderServer) -> None:
    other = ProviderServer()
    try:
        server.on("thing", Reply({}, 302, {"Location": f"{other.url}/v4/thing"}))
        with pytest.raises(SignalRefused, match="302"):
            ask(http, server)
        assert other.asked == []
    finally:
        other.stop()


def test_no_message_log_or_representation_holds_the_key(http: Http, server: ProviderServer, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    server.on("thing", Reply({"error": f"token {TOKEN} is unknown"}, 401))
    with pytest.raises(SignalFault, match=r"token \*\*\* is unknown") as caught:
        ask(http, server)
    assert caught.value.__cause__ is None
    assert TOKEN not in caplog.text
    assert TOKEN not in repr({"auth-token": Secret(TOKEN)})


def test_a_key_with_a_line_break_is_refused_without_showing_it(http: Http, server: ProviderServer) -> None:
    with pytest.raises(SignalRefused, match="stray characters") as caught:
        ask(http, server, token=f"{TOKEN}\nX: y")
    assert TOKEN not in str(caught.value)


def test_no_frame_of_a_fault_shows_the_key(http: Http, server: ProviderServer) -> None:
    server.stop()
    with pytest.raises(SignalOutage) as caught:
        ask(http, server)
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb)]
    shown = [repr(frame.f_locals) for frame in frames if "orchestrator/http/session" in frame.f_code.co_filename]
    assert shown
    assert not any(TOKEN in text for text in shown)


def test_a_server_on_this_machine_is_asked_past_any_proxy(
    http: Http, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server.on("thing", Reply({"a": 1}))
    assert ask(http, server) == {"a": 1}


def test_a_server_without_a_trusted_certificate_is_an_outage_at_once(http: Http, server: ProviderServer) -> None:
    url = server.url.replace("http://", "https://")
    with pytest.raises(SignalOutage, match="no certificate that this machine trusts; check base_url"):
        http.get(f"{url}/v4/thing", {}, stale, ASKER, limits=QUICK)


def test_a_secret_that_must_be_fetched_is_fetched_only_for_a_question_to_the_provider(
    http: Http, server: ProviderServer
) -> None:
    fetched = []

    def secrets() -> dict[str, Secret]:
        fetched.append(1)
        return {"Authorization": Secret.bearer(TOKEN)}

    server.on("thing", Reply({"a": 1}))
    for _ in range(3):
        assert http.get(f"{server.url}/v4/thing", {}, fresh, ASKER, secrets=secrets, limits=QUICK).value == {"a": 1}
    assert len(fetched) == server.count("thing") == 1
    assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
