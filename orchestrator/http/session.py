"""The one door to HTTP: bounded in time and size, patient with failures, cached on disk by the slot.
In: a URL, parameters, secret headers and a reader of the document. Out: the reader's value and when it was fetched.
Providers turn that into a Forecast; only this module and those it is made of import requests.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import requests

from orchestrator.http.cache import SECRET_HEADERS, AnswerCache
from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.flight import Flight
from orchestrator.http.limits import Limits
from orchestrator.http.notes import Notes
from orchestrator.http.nothing import NO_CONTENT
from orchestrator.http.patience import asked_wait_s
from orchestrator.http.refusal import Asker, Explain, Secret, refusal, shown
from orchestrator.http.wire import Wire

__all__ = ["SECRET_HEADERS", "Answer", "Http", "Limits", "Reader", "shared"]

Value = TypeVar("Value")

log = logging.getLogger(__name__)

_NOTHING_STATUS, _TOO_MANY = 204, 429
_OPEN_S = 10.0
_NO_JSON = object()


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


@dataclass(frozen=True)
class _Question(Generic[Value]):
    """One question as `Http.get` was asked it."""

    url: str
    params: Mapping[str, str]
    read: Reader[Value]
    asker: Asker
    secrets: Secrets | Callable[[], Secrets] | None
    limits: Limits
    explain: Explain | None
    as_bytes: bool
    accept: str

    @property
    def provider_there(self) -> str:
        """The provider and its server, for what is true of all questions to it."""
        return f"{self.asker.provider} {urlsplit(shown(self.url)).netloc}"

    def prepared(self, session: requests.Session, secrets: Secrets | None = None) -> requests.PreparedRequest:
        """The request; SignalRefused where the address or a secret cannot be put in one."""
        secrets = secrets or {}
        if unknown := set(secrets) - set(SECRET_HEADERS):
            raise ValueError(f"{sorted(unknown)[0]} is not among SECRET_HEADERS")
        headers = {"Accept": self.accept, **secrets}
        try:
            return session.prepare_request(requests.Request("GET", self.url, params=dict(self.params), headers=headers))
        except (requests.RequestException, UnicodeError):
            text = f"{shown(self.url)} cannot be asked; check base_url and the key for stray characters"
        raise SignalRefused(self.asker.provider, self.asker.zone, text, "request")

    def put(self, wire: Wire) -> tuple[requests.Response, Value, datetime]:
        """The provider's answer, its value and until when it is fresh."""
        held = (self.secrets() if callable(self.secrets) else self.secrets) or {}
        response = wire.ask(self.prepared(wire.session, held), self.asker, self.limits)
        status, body = response.status_code, response.content
        if status not in {200, _NOTHING_STATUS}:
            wait_s = asked_wait_s(response.headers)
            raise refusal(status, body, self.asker, held.values(), wait_s, self.explain)
        kind = response.headers.get("Content-Type", "no content type").split(";")[0]
        return response, *self.reading(status, body, kind)

    def reading(self, status: int, body: bytes, kind: str = "a cached text") -> tuple[Value, datetime]:
        """The value of a body, and until when it is fresh; SignalGarbled where it is not what it should be."""
        if status == _NOTHING_STATUS:
            return self.read(NO_CONTENT)
        if self.as_bytes:
            return self.read(body)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = _NO_JSON
        if document is _NO_JSON:
            text = f"{shown(self.url)} answered with {kind} that is not JSON; check base_url and any proxy between"
            raise SignalGarbled(self.asker.provider, self.asker.zone, text)
        return self.read(document)


class Http:
    """One session with a cache on disk; safe to share between threads. Raises SignalFault alone."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utcnow):
        self._flight = Flight(folder / "flights")
        with self._flight.turn("open", _OPEN_S):  # SQLite cannot be made by several at once
            self._cache = AnswerCache(folder)
        self._wire = Wire(self._cache.session)
        self.notes = Notes(folder / "notes")
        """What providers leave for other processes to know."""
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
        whose: str = "",
    ) -> Answer[Value]:
        """The document at `url`, read; from the cache while it is fresh, and one request for all who ask at once.

        `secrets` are headers that reach the provider alone; each name must be one of SECRET_HEADERS. Given as a
        function, they are asked for only where the cache has no answer. `keep=False` is for answers that hold a secret
        themselves, such as a login's: asked each time and never written down.
        `as_bytes` hands `read` the body as it came, for what is no JSON; `accept` asks for a kind of document. `whose`
        keeps accounts apart whose answers differ. What fails is raised for all who wait for it, and for a few seconds;
        a provider that asks for fewer questions and says for how long is left alone so long by all processes.
        Raises SignalRefused, SignalOutage or SignalGarbled, whose text holds no secret.
        """
        question = _Question(url, params, read, asker, secrets, limits or Limits(), explain, as_bytes, accept)
        if not keep:
            return Answer(question.put(self._wire)[1], self.now())
        key, began = self._cache.key(question.prepared(self._wire.session), whose), self.now()
        if (answer := self._kept(key, question)) is not None:
            return answer
        with self._flight.turn(key, question.limits.total_s):
            if (answer := self._kept(key, question)) is not None:
                return answer
            for told in (key, question.provider_there):
                if (failed := self._flight.failed(told, began, self.now(), asker)) is not None:
                    raise failed
            return self._asked(key, question)

    def _kept(self, key: str, question: _Question[Value]) -> Answer[Value] | None:
        if (kept := self._cache.find(key, self.now())) is None:
            return None
        try:
            return Answer(question.reading(kept.status, kept.body)[0], kept.fetched_at)
        except SignalGarbled:
            asker = question.asker
            log.warning("%s: zone %s: a cached answer cannot be read; asking again", asker.provider, asker.zone)
            return None

    def _asked(self, key: str, question: _Question[Value]) -> Answer[Value]:
        try:
            response, value, fresh_until = question.put(self._wire)
        except SignalFault as fault:
            self._flight.fail(key, fault, self.now(), question.limits)
            if _is_of_server(fault, question.limits):
                self._flight.fail(question.provider_there, fault, self.now(), question.limits)
            raise
        now = self.now()
        self._cache.keep(key, response, now, fresh_until)
        self._flight.done(key)
        return Answer(value, now)


def _is_of_server(fault: SignalFault, limits: Limits) -> bool:
    """Whether it goes for all questions: nobody answers, or whoever does asks for fewer of them for a while.

    Else each zone of a large site would find out for itself that nobody is there, one time limit after another. What
    is asked once only, in little time, tells nothing of the rest.
    """
    is_silent = isinstance(fault, SignalOutage) and fault.status is None and limits.retries > 0
    return is_silent or (fault.status == _TOO_MANY and fault.retry_after_s is not None)


_shared: dict[Path, Http] = {}
_shared_guard = threading.Lock()


def shared(folder: Path) -> Http:
    """The one session of this process for a cache folder."""
    place = folder.resolve()
    with _shared_guard:
        if place not in _shared:
            _shared[place] = Http(place)
        return _shared[place]
