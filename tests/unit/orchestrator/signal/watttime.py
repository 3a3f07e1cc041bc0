"""WattTime v3 as its tests meet it: an account, a server that answers in its shapes, the provider that asks it.
In: a server on loopback. Out: fixtures and answers; all numbers are synthetic.
The tests of its documents and of its login share them.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from orchestrator.http.session import Http
from orchestrator.signal.provider import Setup
from orchestrator.signal.watttime import WattTime, make
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, Asked, ProviderServer, Reply

USER, PASSWORD = "freddo", "secret-9c1"
ZONE = "CAISO_NORTH"
AHEAD, PAST = "v3/forecast", "v3/historical"
FIVE = timedelta(minutes=5)
FORBIDDEN = Reply(
    body=b"<html><head><title>403 Forbidden</title></head><body>nginx</body></html>",
    status=403,
    headers={"Content-Type": "text/html"},
)
EXPIRED = Reply({"error": "UNAUTHORIZED", "message": "token expired"}, 401)
SCOPE = {"error": "Invalid query parameters", "message": "Invalid scope. You do not have sufficient access to this."}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account in the environment; and never the turn of a slot."""
    monkeypatch.setenv("WT_USER", USER)
    monkeypatch.setenv("WT_PASSWORD", PASSWORD)
    left_s = 300 - time.time() % 300
    if left_s < 5:
        time.sleep(left_s + 0.01)
    yield


@pytest.fixture(autouse=True)
def tokens(server: ProviderServer) -> list[str]:
    """The tokens that the server has given out: token-1, token-2 and so on."""
    given: list[str] = []

    def login(asked: Asked) -> Reply:
        assert asked.headers["Authorization"] == "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        given.append(f"token-{len(given) + 1}")
        return Reply({"token": given[-1]})

    server.replies["login"] = login
    return given


def setup(http: Http, server: ProviderServer, shared: dict[Any, Any] | None = None, **settings: Any) -> Setup:
    document = {"base_url": server.url, "user_env": "WT_USER", "password_env": "WT_PASSWORD", **settings}
    site = ProviderSite.model_validate({name: value for name, value in document.items() if value is not None})
    zone = ZoneSite(provider=["watttime"])
    return Setup("watttime", ZONE, zone, site, lambda: http, {} if shared is None else shared)


@pytest.fixture
def provider(http: Http, server: ProviderServer) -> WattTime:
    found = make(setup(http, server))
    found._limits = QUICK
    return found


def now() -> datetime:
    return datetime.now(timezone.utc)


def slot(offset: int = 0) -> datetime:
    """The start of the current five minutes, or of others so many from it."""
    return datetime.fromtimestamp(time.time() // 300 * 300, timezone.utc) + offset * FIVE


def answer(values: list[Any], first: int = 0, period_s: int = 300, **meta: Any) -> dict[str, Any]:
    """Rows of pounds per MWh, and what the service says of them."""
    rows = [
        {"point_time": (slot(first) + n * timedelta(seconds=period_s)).isoformat(), "value": value}
        for n, value in enumerate(values)
    ]
    said = {
        "data_point_period_seconds": period_s,
        "region": ZONE,
        "warnings": [],
        "signal_type": "co2_moer",
        "model": {"date": "2023-03-01"},
        "units": "lbs_co2_per_mwh",
        "generated_at_period_seconds": 300,
        "generated_at": slot().isoformat(),
        **meta,
    }
    return {"data": rows, "meta": {name: value for name, value in said.items() if value is not ...}}
