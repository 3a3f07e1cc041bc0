"""The one door to HTTP: bounded in time and size, patient with failures, cached on disk by the slot.
In: a URL, parameters, secret headers and a reader of the document. Out: the reader's value and when it was fetched.
Providers turn that into a Forecast; only this module and those it is made of import requests.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar

import requests

from orchestrator.signal.cache import SECRET_HEADERS, AnswerCache
from orchestrator.signal.faults import SignalGarbled, SignalRefused
from orchestrator.signal.limits import Limits
from orchestrator.signal.patience import asked_wait_s
from orchestrator.signal.reading import NO_CONTENT
from orchestrator.signal.refusal import Asker, Explain, Secret, refusal, shown
from orchestrator.signal.wire import Wire

__all__ = ["SECRET_HEADERS", "Answer", "Http", "Limits", "Reader", "shared"]

Value = TypeVar("Value")

log = logging.getLogger(__name__)

_NOTHING_STATUS = 204


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """A value read from a provider's document, and when that document came over the wire."""

    value: Value
    fetched_at: datetime


Secrets = Mapping[str, Secret]

Reader = Callable[[Any], tuple[Value, datetime]]
"""From a document to a value and the moment until which it is fresh; raises SignalGarbled on what is wrong.

The document is parsed JSON, or bytes where they were asked for, or NO_CONTENT where the provider answered 204.
"""


def utcnow() -> datetime:
    """The machine's clock."""
    return datetime.now(timezone.utc)


class Http:
    """One session with a cache on disk; safe to share between threads. Raises SignalFault alone."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utcnow):
        self._cache = AnswerCache(folder)
        self._wire = Wire(self._cache.session)
        self._locks = tuple(threading.Lock() for _ in range(64))
        self.now = clock
        """What the session takes for now, by which answers are fresh or stale."""

    def close(self) -> None:
        """Close connections and the cache."""
        self._cache.close()

    def get(
        self,
        url: str,
        params: Mapping[str, str],
        read: Reader[Value],
        asker: Asker,
        *,
        secrets: Secrets | Callable[[], Secrets] | None = None,
        limits: Limits | None = None,
        explain: Explain | None = None,
        keep: bool = True,
        as_bytes: bool = False,
        accept: str = "application/json",
    ) -> Answer[Value]:
        """The document at `url`, read; from the cache while it is fresh, and one request for all who ask at once.

        `secrets` are headers that reach the provider alone; each name must be one of SECRET_HEADERS. Given as a
        function, they are asked for only where the cache has no answer. `keep=False` is for answers that hold a secret
        themselves, such as a login's: asked each time and never written down.
        `as_bytes` hands `read` the body as it came, for what is no JSON; `accept` asks for a kind of document.
        Raises SignalRefused, SignalOutage or SignalGarbled, whose text holds no secret.
        """
        limits = limits or Limits()

        def document(status: int, body: bytes, kind: str) -> Any:
            if status == _NOTHING_STATUS:
                return NO_CONTENT
            return body if as_bytes else _parsed(body, kind, url, asker)

        def asked() -> tuple[requests.Response, Value, datetime]:
            held = (secrets() if callable(secrets) else secrets) or {}
            response = self._wire.ask(self._prepared(url, params, accept, asker, held), asker, limits)
            if response.status_code not in {200, _NOTHING_STATUS}:
                wait_s = asked_wait_s(response.headers)
                raise refusal(response.status_code, response.content, asker, held.values(), wait_s, explain)
            kind = response.headers.get("Content-Type", "no content type").split(";")[0]
            value, fresh_until = read(document(response.status_code, response.content, kind))
            return response, value, fresh_until

        if not keep:
            return Answer(asked()[1], self.now())
        key = self._cache.key(self._prepared(url, params, accept, asker))
        with self._flight(key):
            if (kept := self._cache.find(key, self.now())) is not None:
                try:
                    return Answer(read(document(kept.status, kept.body, "a cached text"))[0], kept.fetched_at)
                except SignalGarbled:
                    log.warning("%s: zone %s: a cached answer cannot be read; asking again", asker.provider, asker.zone)
            response, value, fresh_until = asked()
            now = self.now()
            self._cache.keep(key, response, now, fresh_until)
            return Answer(value, now)

    def _prepared(
        self, url: str, params: Mapping[str, str], accept: str, asker: Asker, secrets: Secrets | None = None
    ) -> requests.PreparedRequest:
        secrets = secrets or {}
        if unknown := set(secrets) - set(SECRET_HEADERS):
            raise ValueError(f"{sorted(unknown)[0]} is not among SECRET_HEADERS")
        headers = {"Accept": accept, **secrets}
        try:
            return self._cache.session.prepare_request(
                requests.Request("GET", url, params=dict(params), headers=headers)
            )
        except (requests.RequestException, UnicodeError):
            text = f"{shown(url)} cannot be asked; check base_url and the key for stray characters"
        raise SignalRefused(asker.provider, asker.zone, text, "request")

    @contextmanager
    def _flight(self, key: str) -> Iterator[None]:
        """One question at a time for each cache key: the others find its answer in the cache."""
        with self._locks[hash(key) % len(self._locks)]:
            yield


_shared: dict[Path, Http] = {}
_shared_guard = threading.Lock()


def shared(folder: Path) -> Http:
    """The one session of this process for a cache folder."""
    place = folder.resolve()
    with _shared_guard:
        if place not in _shared:
            _shared[place] = Http(place)
        return _shared[place]


def _parsed(body: bytes, kind: str, url: str, asker: Asker) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        text = f"{shown(url)} answered with {kind} that is not JSON; check base_url and any proxy between"
    raise SignalGarbled(asker.provider, asker.zone, text)
