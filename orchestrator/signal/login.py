"""A login that all zones and threads of a process share: a user and a password for a token, which is kept in memory.
In: where to log in, and as whom. Out: the token while it is valid; SignalFault where there is none to be had.
Providers that ask with a token make one by `Setup.once`.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.http.faults import Reason
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker, Secret
from orchestrator.signal.reading import Reading

if TYPE_CHECKING:
    from orchestrator.http.session import Http


class Login:
    """One account; safe to share between threads: those who need a token wait for the one who fetches it."""

    def __init__(
        self, http: Http, url: str, user: Secret, password: Secret, keys: str, lasts: timedelta, limits: Limits
    ):
        self.keys = keys
        """The environment variables that hold user and password, for messages."""
        self._http = http
        self._url = url
        self._basic = Secret.basic(user, password)
        self._lasts = lasts
        self._limits = limits
        self._lock = threading.Lock()
        self._token: Secret | None = None
        self._until: datetime | None = None

    def token(self, asker: Asker) -> Secret:
        """The Authorization header of a valid token, from a new login where there is none. Raises SignalFault."""
        with self._lock:
            if self._token is None or self._until is None or self._http.now() >= self._until:
                self._token, self._until = self._fetched(asker), self._http.now() + self._lasts
            return self._token

    def drop(self, token: Secret) -> None:
        """Forget a token that was refused, unless another thread has fetched a new one since."""
        with self._lock:
            if self._token == token:
                self._token = None

    def _fetched(self, asker: Asker) -> Secret:
        def read(document: Any) -> tuple[Secret, datetime]:
            reading = Reading(asker.provider, asker.zone)
            token = reading.mapping(document).get("token")
            if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token.strip():
                raise reading.garbled("answered a login without a token; check base_url")
            return Secret.bearer(token.strip()), self._http.now()

        return self._http.get(
            self._url,
            {},
            read,
            asker,
            secrets={"Authorization": self._basic},
            limits=self._limits,
            explain=_explain,
            keep=False,
        ).value


def _explain(status: int, said: str) -> Reason | None:
    """What a login refuses is the user or the password."""
    return "key" if status in {400, 401, 403, 422} else None
