"""What a provider says that a zone's grid really was, with who said it.
In: a provider's points of the past. Out: Measured, which names provider, signal and when it was fetched.
The chain of a zone's providers gives it; the store keeps each of its slots for the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestrator.signal.forecast import Point, Signal

Factor = Literal["lifecycle", "direct"]
"""Whether a plant's intensity counts its building and fuel chain too, or what leaves the stack alone."""


@dataclass(frozen=True)
class Measured:
    """Points of a zone's past from one provider; none of them is a forecast."""

    zone: str
    provider: str
    signal: Signal
    points: tuple[Point, ...]
    fetched_at: datetime
    factor: Factor | None = None
    """None where the provider does not say."""
    note: str | None = None
    """What readers must know of the numbers, such as that they are generated."""
