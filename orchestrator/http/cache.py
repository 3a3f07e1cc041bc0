"""Answers of providers on disk until they are stale, without anything secret.
In: a response, and until when it is fresh. Out: the same answer for whoever asks the same in that time.
The HTTP session of every process of a site keeps its answers in one folder by it.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import requests
import requests_cache
from requests_cache.backends.base import BaseCache
from requests_cache.backends.sqlite import SQLiteCache
from requests_cache.models.response import CachedResponse

log = logging.getLogger(__name__)

SECRET_HEADERS = ("auth-token", "Authorization", "Set-Cookie")
"""Never written to the cache; a provider's own key header belongs here too."""

_PRUNE_EVERY = 200


@dataclass(frozen=True)
class Kept:
    """An answer as it came."""

    status: int
    body: bytes
    fetched_at: datetime


class AnswerCache:
    """The cache, and the session that knows its settings; a cache that fails is a warning and no fault."""

    def __init__(self, folder: Path):
        self._backend = _backend(folder)
        self.session = requests_cache.CachedSession(
            backend=self._backend,
            expire_after=requests_cache.DO_NOT_CACHE,  # read and written here: the slot is known once it is read
            ignored_parameters=SECRET_HEADERS,
        )
        self._saved = 0
        self._prune()

    def close(self) -> None:
        """Close the session's connections and the cache."""
        self.session.close()  # type: ignore[no-untyped-call]

    def key(self, prepared: requests.PreparedRequest, whose: str = "") -> str:
        """What questions of the same address, parameters and owner share, whatever their secrets."""
        return self._backend.create_key(prepared) + whose

    def find(self, key: str, now: datetime) -> Kept | None:
        """The answer that is fresh at `now`; None where there is none."""
        try:
            kept = self._backend.get_response(key)
        except (sqlite3.Error, ValueError, TypeError) as fault:
            log.warning("the cache cannot be read (%s); asking the provider", fault)
            return None
        if kept is None or kept.expires is None or kept.expires <= now:
            return None
        return Kept(kept.status_code, kept.content or b"", _aware(kept.created_at))

    def keep(self, key: str, response: requests.Response, now: datetime, fresh_until: datetime) -> None:
        """Write an answer down until it is stale, without the headers that are secret."""
        if fresh_until <= now:
            return
        for name in SECRET_HEADERS:
            response.request.headers.pop(name, None)
            response.headers.pop(name, None)
        response.cookies.clear()
        kept = CachedResponse.from_response(response, created_at=now)
        try:
            self._backend.save_response(kept, key, fresh_until)
        except sqlite3.Error as fault:
            log.warning("the cache cannot be written (%s); the next question goes to the provider", fault)
            return
        self._saved += 1
        if self._saved % _PRUNE_EVERY == 0:
            self._prune()

    def _prune(self) -> None:
        try:
            self._backend.delete(expired=True)
        except sqlite3.Error as fault:
            log.warning("the cache cannot be pruned (%s); delete it if that persists", fault)


def _backend(folder: Path) -> BaseCache:
    """The cache in the state folder; one in memory where the folder cannot hold it, and a warning."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return SQLiteCache(folder / "http.sqlite", serializer="json", wal=True, busy_timeout=5000)
    except (OSError, sqlite3.Error) as fault:
        log.warning("%s cannot hold the cache of answers (%s); it stays in memory", folder, fault)
        return BaseCache()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
