"""The bounds of one question to a provider, apart from the session that keeps them.
In: nothing. Out: Limits, with the usual figures.
Providers are made with them; the HTTP session holds each question to them.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """Parsed JSON takes some ten times as much memory, for as long as it is being read."""
    failed_s: float = 5.0
    """How long all processes that share the cache hold a failure for the answer, where the provider names no time."""
