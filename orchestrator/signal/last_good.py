"""The last good forecast of each zone and provider, kept on disk for the time when the provider fails.
In: forecasts as they come. Out: the last one, marked stale, while it is young enough and still reaches beyond now.
The chain of a zone's providers keeps and asks; a new process finds what an earlier one kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orchestrator.signal.forecast import Forecast

log = logging.getLogger(__name__)

_FORECAST = TypeAdapter(Forecast)


class LastGood:
    """A folder with one small JSON file for each source."""

    def __init__(self, folder: Path, max_age_s: float):
        self._folder = folder
        self._max_age = timedelta(seconds=max_age_s)

    def keep(self, source: str, forecast: Forecast) -> None:
        """Write a forecast down as the source's last; a full disk is a warning and no fault."""
        path = self._path(source)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self._folder, suffix=".partial")
            with os.fdopen(handle, "wb") as file:
                file.write(_FORECAST.dump_json(forecast))
            os.replace(partial, path)
        except OSError as fault:
            log.warning("%s cannot be written (%s); an outage would find no earlier forecast", path, fault.strerror)

    def find(self, source: str, now: datetime) -> Forecast | None:
        """The source's last forecast, marked stale; None where it is too old or ends before `now`."""
        path = self._path(source)
        try:
            kept = _FORECAST.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            log.warning("%s cannot be read; delete it if that persists", path)
            return None
        if now - kept.fetched_at > self._max_age or all(point.end <= now for point in kept.points):
            return None
        return replace(kept, stale=True)

    def _path(self, source: str) -> Path:
        words = re.sub(r"[^A-Za-z0-9_-]+", "-", source)[:60]
        return self._folder / f"{words}-{hashlib.sha256(source.encode()).hexdigest()[:12]}.json"
