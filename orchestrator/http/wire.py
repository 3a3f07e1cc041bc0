"""One question to a provider over the wire, held to its limits, and what can go wrong with it in plain words.
In: a prepared request and its Limits. Out: a response whose body is read; SignalOutage or SignalGarbled else.
The HTTP session puts the questions that its cache does not answer.
"""

from __future__ import annotations

import logging
import time
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from orchestrator.http.faults import SignalGarbled, SignalOutage
from orchestrator.http.limits import Limits
from orchestrator.http.patience import Adapter, Attempt, Patience
from orchestrator.http.refusal import Asker, shown

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each failed attempt; the fault says it once

_ERROR_BODY_BYTES = 16_384
_PIECE_BYTES = 65_536
_LATE = "did not answer in time; raise providers.{}.timeout or try later"


class Wire:
    """A requests session made careful: its own name, no cookies, no netrc, no redirects, no proxy to this machine."""

    def __init__(self, session: requests.Session):
        self.session = session
        session.headers["User-Agent"] = f"lowtide/{_version()}"
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.auth = _no_netrc
        self._adapter = Adapter()
        session.mount("https://", self._adapter)
        session.mount("http://", self._adapter)

    def ask(self, prepared: requests.PreparedRequest, asker: Asker, limits: Limits) -> requests.Response:
        """One question with its retries; the body is read within its bounds. SignalOutage where none came."""
        until = time.monotonic() + limits.total_s
        settings = self.session.merge_environment_settings(prepared.url, {}, True, None, None)
        if _is_loopback(prepared.url or ""):
            settings["proxies"] = {}
        place = shown(prepared.url or "")
        timeout: Any = Attempt(limits, until)  # requests hands it on to urllib3 as it is
        try:
            with self._adapter.patience(Patience.within(limits, until)):
                response = self.session.send(prepared, timeout=timeout, allow_redirects=False, **settings)
            with response:
                _read_body(response, asker, limits, until)
            return response
        except requests.exceptions.SSLError:
            text = f"{place} shows no certificate that this machine trusts; check base_url and the machine's clock"
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            text = f"{place} {_LATE.format(asker.provider)}"
        except (requests.ConnectionError, urllib3.exceptions.HTTPError) as fault:
            root = _root(fault)
            late = root == urllib3.exceptions.ReadTimeoutError.__name__
            text = f"is not reachable ({root}); check the network and base_url"
            text = f"{place} {_LATE.format(asker.provider) if late else text}"
        except requests.RequestException as fault:
            text = f"{place} cannot be asked ({type(fault).__name__}); check base_url"
        raise SignalOutage(asker.provider, asker.zone, text) from None


def _version() -> str:
    try:
        return version("lowtide")
    except PackageNotFoundError:
        return "0"


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from sending what a ~/.netrc holds for the host."""
    return request


def _is_loopback(url: str) -> bool:
    """True for a server on this machine, such as `lowtide grid`, that no proxy of the site can reach."""
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def _read_body(response: requests.Response, asker: Asker, limits: Limits, until: float) -> None:
    """Read the body piece by piece, so that neither a large nor a slow one holds the caller."""
    bound = limits.body_bytes if response.status_code == 200 else _ERROR_BODY_BYTES
    body = bytearray()
    while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
        body += piece
        if len(body) > bound:
            if response.status_code != 200:
                break
            text = f"{shown(response.url)} sends more than {bound / 2**20:g} MiB; check base_url"
            raise SignalGarbled(asker.provider, asker.zone, text)
        if time.monotonic() >= until:
            raise requests.Timeout
    response._content = bytes(body[:bound])
    response._content_consumed = True  # type: ignore[attr-defined]


def _root(fault: BaseException) -> str:
    """The innermost cause's kind, since its text may hold the whole request."""
    inner = fault.args[0] if fault.args else fault
    reason = getattr(inner, "reason", inner)
    if isinstance(reason, urllib3.exceptions.ResponseError):
        return "too many failures"
    return type(reason if isinstance(reason, BaseException) else fault).__name__
