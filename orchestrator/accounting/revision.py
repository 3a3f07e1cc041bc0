"""What else the same joules would be charged: by the intensities first known, by marginal and by average ones.
In: an Account. Out: grams, and how far a revision moved them; None where an intensity is missing.
The report shows them beside what is charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from math import fsum

from orchestrator.accounting.account import Account, Intensity, end_of
from orchestrator.accounting.charge import Curve
from orchestrator.accounting.ledger import curves_of, drawn
from orchestrator.signal.forecast import Signal

KNOWN_AT_LEAST = 1 - 1e-6


def revised_g(facts: Account) -> float | None:
    """Operational grams by the newest intensities less those by what was first known of each moment.

    What was first known is a forecast, mostly: the figure says how far a report has moved since it could first be made.
    """
    newest = drawn(facts, curves_of(facts))
    if not newest.known_j:
        return None
    return newest.operational_g - drawn(facts, curves_of(facts, first=True)).operational_g


def marginal_g(facts: Account) -> float | None:
    """Operational grams by marginal intensities, where they are known for all of the energy: for scheduling only."""
    return _by_signal_g(facts, "marginal", facts.marginal)


def average_g(facts: Account) -> float | None:
    """Operational grams by average intensities, where they are known for all of the energy: a location-based figure."""
    return _by_signal_g(facts, "average", facts.average)


def _by_signal_g(facts: Account, signal: Signal, known: Sequence[Intensity]) -> float | None:
    """Each moment is charged once, by the best of what was said of this kind, whoever said it."""
    said = [*known, *(given for given in facts.intensities if given.signal == signal)]
    if not said:
        return None
    by_signal = drawn(facts, curves_of(replace(facts, intensities=said)))
    if not by_signal.energy_j or by_signal.known_j < by_signal.energy_j * KNOWN_AT_LEAST:
        return None
    return by_signal.operational_g


def forecast_h(facts: Account) -> float:
    """Hours of the job's segments that only a forecast charges yet."""
    curves = curves_of(facts)
    found = []
    for segment in facts.segments:
        end = end_of(segment, facts)
        curve = curves.get(segment.zone, Curve(()))
        share = fsum(share for piece, share in curve.overlaps(segment.started_at, end) if piece.kind == "forecast")
        found.append(share * ((end - segment.started_at) / timedelta(hours=1)))
    return fsum(found)
