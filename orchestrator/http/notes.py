"""Small notes that the processes of a site leave one another for a while, such as that a provider failed just now.
In: a key, a few plain values and until when they hold. Out: the values, to any process that asks in that time.
The HTTP session notes failures; a provider notes what its account cannot do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.spec import iso, utc

log = logging.getLogger(__name__)

_PRUNE_EVERY = 100


class Notes:
    """A folder with a small JSON file for each note; without a folder to write to there are no notes."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._puts = 0

    def put(self, key: str, values: dict[str, Any], now: datetime, until: datetime) -> None:
        """Note plain values until a moment; nothing secret, for anyone who reads the folder reads them."""
        if self._puts % _PRUNE_EVERY == 0:
            self._prune(now)
        self._puts += 1
        text = json.dumps({"key": key, "until": iso(until), "values": values})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".partial")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.utime(partial, (until.timestamp(), until.timestamp()))  # by it the note is pruned
            os.replace(partial, self._path(key))
        except OSError as fault:
            log.debug("%s cannot be written (%s)", self._path(key), fault)

    def find(self, key: str, now: datetime) -> dict[str, Any] | None:
        """The values noted under a key that hold beyond `now`; None where there are none."""
        try:
            note = json.loads(self._path(key).read_bytes())
            if note["key"] != key or utc(note["until"]) <= now:
                return None
            values: dict[str, Any] = note["values"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as fault:
            log.debug("%s cannot be read (%s)", self._path(key), fault)
            return None
        return values if isinstance(values, dict) else None

    def drop(self, key: str) -> None:
        """Forget a note."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as fault:
            log.debug("%s cannot be removed (%s)", self._path(key), fault)

    def _prune(self, now: datetime) -> None:
        """Remove the notes whose time is over, so that the folder holds no more than are of use."""
        for path in self._folder.glob("*.json"):
            try:
                if path.stat().st_mtime < now.timestamp():
                    path.unlink()
            except OSError as fault:
                log.debug("%s cannot be removed (%s)", path, fault)

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
