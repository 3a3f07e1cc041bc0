"""How long a question is put, and how often: retries with jitter, the provider's own wait, timeouts that add up.
In: the Limits of a question. Out: urllib3's Retry, its Timeout, and the adapter that takes both from the question.
The wire puts its questions by it.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter

from orchestrator.http.limits import Limits

_RETRIED = frozenset({429, *range(500, 600)} - {501})
"""501 says that the server cannot do what is asked, now or later."""


class Patience(urllib3.Retry):
    """Retry with jitter from the first wait on, that never waits beyond its budget nor starts past its deadline."""

    left_s: float = 0.0
    until: float = math.inf
    pause_s: float = 0.0

    @classmethod
    def within(cls, limits: Limits, until: float) -> Patience:
        """The patience of a question that must end by `until` on the monotonic clock."""
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

    def new(self, **changes: Any) -> Patience:
        """As urllib3's, with what is left."""
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
    ) -> Patience:
        """As urllib3's, and the end of patience where the next wait does not fit what is left."""
        if isinstance(error, urllib3.exceptions.SSLError):
            raise urllib3.exceptions.MaxRetryError(_pool, url or "", error)
        after = super().increment(method, url, response, error, _pool, _stacktrace)
        asked_s = asked_wait_s(response.headers) if response is not None else None
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
        """Wait as long as `increment` found right."""
        time.sleep(self.pause_s)


class Attempt(urllib3.Timeout):
    """The timeouts of each attempt, cut to the time that is left; urllib3 clones it once an attempt."""

    def __init__(self, limits: Limits, until: float):
        super().__init__(connect=limits.connect_s, read=limits.read_s)
        self._limits, self._until = limits, until

    def clone(self) -> urllib3.Timeout:
        """The timeouts of the attempt that begins now."""
        left_s = max(self._until - time.monotonic(), 0.05)
        return urllib3.Timeout(connect=min(self._limits.connect_s, left_s), read=min(self._limits.read_s, left_s))


class Adapter(HTTPAdapter):
    """An adapter whose retries are those of the question that is being put."""

    def __init__(self) -> None:
        self._local = threading.local()
        super().__init__()

    @contextmanager
    def patience(self, patience: Patience) -> Iterator[None]:
        """Questions of this thread are put with that patience."""
        self._local.patience = patience
        try:
            yield
        finally:
            del self._local.patience

    @property
    def max_retries(self) -> urllib3.Retry:
        """The question's patience; none outside of one."""
        return getattr(self._local, "patience", urllib3.Retry(0))

    @max_retries.setter
    def max_retries(self, retries: urllib3.Retry) -> None:
        """HTTPAdapter sets a default of its own, which no question uses."""


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header in either form (RFC 9110, 10.2.3); None where there is none to understand."""
    given = headers.get("Retry-After")
    if given is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(given)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None
