"""The one door to HTTP: bounded in time and size, patient with failures, cached on disk by the slot.
In: a URL, parameters, secret headers and a reader of the JSON. Out: the reader's value and when it was fetched.
Providers turn that into a Forecast; nothing else in lowtide imports requests.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import requests
import requests_cache
import urllib3
from requests.adapters import HTTPAdapter
from requests_cache.backends.base import BaseCache
from requests_cache.backends.sqlite import SQLiteCache
from requests_cache.models.response import CachedResponse

from orchestrator.signal.faults import SignalGarbled, SignalOutage, SignalRefused
from orchestrator.signal.refusal import Asker, Explain, Secret, refusal, shown

Value = TypeVar("Value")

log = logging.getLogger(__name__)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each failed attempt; the fault says it once

SECRET_HEADERS = ("auth-token", "Authorization", "Set-Cookie")
"""Never written to the cache; a provider's own key header belongs here too."""

_RETRIED = frozenset({429, *range(500, 600)})
_ERROR_BODY_BYTES = 16_384
_PIECE_BYTES = 65_536
_PRUNE_EVERY = 200
_LATE = "did not answer in time; raise providers.{}.timeout or try later"


@dataclass(frozen=True)
class Limits:
    """Bounds of one question to a provider, in seconds and bytes."""

    connect_s: float = 5.0
    read_s: float = 30.0
    wait_s: float = 20.0
    """Between attempts, all together; an answer that asks for more ends the attempts."""
    total_s: float = 45.0
    """Attempts, waits and body together."""
    retries: int = 3
    backoff_s: float = 0.5
    body_bytes: int = 8 * 1024 * 1024


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """A value read from a provider's JSON, and when that JSON came over the wire."""

    value: Value
    fetched_at: datetime


Reader = Callable[[Any], tuple[Value, datetime]]
"""From parsed JSON to a value and the moment until which it is fresh; raises SignalGarbled on what is wrong."""


class _Patience(urllib3.Retry):
    """Retry with jitter from the first wait on, that never waits beyond its budget nor starts past its deadline."""

    left_s: float = 0.0
    until: float = math.inf
    pause_s: float = 0.0

    @classmethod
    def within(cls, limits: Limits, until: float) -> _Patience:
        patience = cls(
            total=limits.retries,
            redirect=False,
            status_forcelist=_RETRIED,
            allowed_methods=("GET",),
            backoff_factor=limits.backoff_s,
            raise_on_status=False,
        )
        patience.left_s, patience.until = limits.wait_s, until
        return patience

    def new(self, **changes: Any) -> _Patience:
        after = super().new(**changes)
        after.left_s, after.until = self.left_s, self.until
        return after

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> _Patience:
        """As urllib3's, and the end of patience where the next wait does not fit what is left."""
        if isinstance(error, urllib3.exceptions.SSLError):
            raise urllib3.exceptions.MaxRetryError(_pool, url or "", error)
        after = super().increment(method, url, response, error, _pool, _stacktrace)
        asked_s = _asked_wait_s(response.headers) if response is not None else None
        doublings = len(after.history) - 1
        after.pause_s = asked_s or self.backoff_factor * (2**doublings) * random.uniform(0.5, 1.5)
        after.left_s = self.left_s - after.pause_s
        if after.left_s < 0 or time.monotonic() + after.pause_s >= self.until:
            reason = error or urllib3.exceptions.ResponseError("no time is left for another attempt")
            raise urllib3.exceptions.MaxRetryError(_pool, url or "", reason)
        if response is not None:
            response.close()  # else urllib3 would read an endless error page to its end
        return after

    def sleep(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        time.sleep(self.pause_s)


class _Attempt(urllib3.Timeout):
    """The timeouts of each attempt, cut to the time that is left; urllib3 clones it once an attempt."""

    def __init__(self, limits: Limits, until: float):
        super().__init__(connect=limits.connect_s, read=limits.read_s)
        self._limits, self._until = limits, until

    def clone(self) -> urllib3.Timeout:
        left_s = max(self._until - time.monotonic(), 0.05)
        return urllib3.Timeout(connect=min(self._limits.connect_s, left_s), read=min(self._limits.read_s, left_s))


class _Adapter(HTTPAdapter):
    """An adapter whose retries are those of the question that is being put."""

    def __init__(self) -> None:
        self._local = threading.local()
        super().__init__()

    @contextmanager
    def patience(self, patience: _Patience) -> Iterator[None]:
        self._local.patience = patience
        try:
            yield
        finally:
            del self._local.patience

    @property
    def max_retries(self) -> urllib3.Retry:
        return getattr(self._local, "patience", urllib3.Retry(0))

    @max_retries.setter
    def max_retries(self, retries: urllib3.Retry) -> None:
        """HTTPAdapter sets a default of its own, which no question uses."""


class Http:
    """One session with a cache on disk; safe to share between threads. Raises SignalFault alone."""

    def __init__(self, folder: Path):
        self._session = requests_cache.CachedSession(
            backend=_cache(folder),
            expire_after=requests_cache.DO_NOT_CACHE,  # read and written below: the slot is known once it is read
            ignored_parameters=SECRET_HEADERS,
        )
        self._session.headers["User-Agent"] = f"lowtide/{_version()}"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.auth = _no_netrc
        self._adapter = _Adapter()
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)
        self._locks = tuple(threading.Lock() for _ in range(64))
        self._saved = 0
        self._prune()

    def close(self) -> None:
        """Close connections and the cache."""
        self._session.close()  # type: ignore[no-untyped-call]

    def get(
        self,
        url: str,
        params: Mapping[str, str],
        read: Reader[Value],
        asker: Asker,
        *,
        secrets: Mapping[str, Secret] | None = None,
        limits: Limits | None = None,
        explain: Explain | None = None,
    ) -> Answer[Value]:
        """The JSON at `url`, read; from the cache while it is fresh, and one request for all who ask at once.

        `secrets` are headers that reach the provider alone; each name must be one of SECRET_HEADERS.
        Raises SignalRefused, SignalOutage or SignalGarbled, whose text holds no secret.
        """
        secrets, limits = secrets or {}, limits or Limits()
        if unknown := set(secrets) - set(SECRET_HEADERS):
            raise ValueError(f"{sorted(unknown)[0]} is not among SECRET_HEADERS")
        question = requests.Request("GET", url, params=dict(params), headers={"Accept": "application/json", **secrets})
        try:
            prepared = self._session.prepare_request(question)
        except (requests.RequestException, UnicodeError):
            text = f"{shown(url)} cannot be asked; check base_url and the key for stray characters"
            raise SignalRefused(asker.provider, asker.zone, text, "request") from None
        key = self._session.cache.create_key(prepared)
        with self._flight(key):
            if (kept := self._kept(key)) is not None:
                try:
                    return Answer(read(json.loads(kept.content))[0], _aware(kept.created_at))
                except (ValueError, SignalGarbled):
                    log.warning("%s: zone %s: a cached answer cannot be read; asking again", asker.provider, asker.zone)
            response = self._ask(prepared, asker, limits)
            if response.status_code != 200:
                wait_s = _asked_wait_s(response.headers)
                raise refusal(response.status_code, response.content, asker, secrets.values(), wait_s, explain)
            document = _parse(response, asker)
            value, fresh_until = read(document)
            self._keep(key, response, fresh_until)
            return Answer(value, datetime.now(timezone.utc))

    def _ask(self, prepared: requests.PreparedRequest, asker: Asker, limits: Limits) -> requests.Response:
        """One question with its retries; the body is read within its bounds. SignalOutage where none came."""
        until = time.monotonic() + limits.total_s
        settings = self._session.merge_environment_settings(prepared.url, {}, True, None, None)
        if _is_loopback(prepared.url or ""):
            settings["proxies"] = {}
        place = shown(prepared.url or "")
        try:
            with self._adapter.patience(_Patience.within(limits, until)):
                response = self._session.send(
                    prepared, timeout=_Attempt(limits, until), allow_redirects=False, **settings
                )
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

    @contextmanager
    def _flight(self, key: str) -> Iterator[None]:
        """One question at a time for each cache key: the others find its answer in the cache."""
        with self._locks[hash(key) % len(self._locks)]:
            yield

    def _kept(self, key: str) -> CachedResponse | None:
        try:
            kept = self._session.cache.get_response(key)
        except (sqlite3.Error, ValueError, TypeError) as fault:
            log.warning("the cache cannot be read (%s); asking the provider", fault)
            return None
        return None if kept is None or kept.is_expired else kept

    def _keep(self, key: str, response: requests.Response, fresh_until: datetime) -> None:
        """Write an answer down until it is stale, without the headers that are secret."""
        if fresh_until <= datetime.now(timezone.utc):
            return
        for name in SECRET_HEADERS:
            response.request.headers.pop(name, None)
            response.headers.pop(name, None)
        response.cookies.clear()
        try:
            self._session.cache.save_response(response, key, fresh_until)
        except sqlite3.Error as fault:
            log.warning("the cache cannot be written (%s); the next question goes to the provider", fault)
            return
        self._saved += 1
        if self._saved % _PRUNE_EVERY == 0:
            self._prune()

    def _prune(self) -> None:
        try:
            self._session.cache.delete(expired=True)
        except sqlite3.Error as fault:
            log.warning("the cache cannot be pruned (%s); delete it if that persists", fault)


_shared: dict[Path, Http] = {}
_shared_guard = threading.Lock()


def shared(folder: Path) -> Http:
    """The one session of this process for a cache folder."""
    place = folder.resolve()
    with _shared_guard:
        if place not in _shared:
            _shared[place] = Http(place)
        return _shared[place]


def _cache(folder: Path) -> BaseCache:
    """The cache in the state folder; one in memory where the folder cannot hold it, and a warning."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return SQLiteCache(folder / "http.sqlite", serializer="json", wal=True, busy_timeout=5000)
    except (OSError, sqlite3.Error) as fault:
        log.warning("%s cannot hold the cache of answers (%s); it stays in memory", folder, fault)
        return BaseCache()


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


def _asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header in either form (RFC 9110, 10.2.3); None where there is none to understand."""
    given = headers.get("Retry-After")
    if given is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(given)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


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


def _parse(response: requests.Response, asker: Asker) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        kind = response.headers.get("Content-Type", "no content type").split(";")[0]
        text = f"{shown(response.url)} answered with {kind} that is not JSON; check base_url and any proxy between"
        raise SignalGarbled(asker.provider, asker.zone, text) from None


def _root(fault: BaseException) -> str:
    """The innermost cause's kind, since its text may hold the whole request."""
    inner = fault.args[0] if fault.args else fault
    reason = getattr(inner, "reason", inner)
    if isinstance(reason, urllib3.exceptions.ResponseError):
        return "too many failures"
    return type(reason if isinstance(reason, BaseException) else fault).__name__


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
