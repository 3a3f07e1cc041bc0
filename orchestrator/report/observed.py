"""What a plan would have saved of a job that ran at once (policy `observe`).
In: an Account with the plan that was observed, and the job's Ledger. Out: a Forgone, or None without such a plan.
`build` and `text` show it.

Once the job is done, the joules that it drew are laid into the hours of the plan, with those of the further starts that
the plan has, and charged by the intensities that came. Before that, and where too few of those are known, the figures
are those of the forecast that the plan was made by.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from orchestrator.accounting.account import Account
from orchestrator.accounting.ledger import Ledger, curves_of
from orchestrator.plan.problem import Observed

KNOWN_AT_LEAST = 0.99
"""Share of the joules that must have an intensity for the plan to be charged by what came."""


@dataclass(frozen=True)
class Forgone:
    """The plan's grams, and what it would have saved."""

    emissions_g: float
    saved_g: float
    is_forecast: bool

    @property
    def saved_percent(self) -> float | None:
        """Of what the job emits as it runs; negative where the plan would have emitted more."""
        whole_g = self.emissions_g + self.saved_g
        return 100.0 * self.saved_g / whole_g if whole_g else None


def forgone(facts: Account, ledger: Ledger) -> Forgone | None:
    """What the observed plan of this job would have saved."""
    seen = facts.observed
    if seen is None or not seen.slots:
        return None
    emitted_g = ledger.total.emissions_g
    if (
        facts.state == "done"
        and emitted_g is not None
        and ledger.total.known_j >= KNOWN_AT_LEAST * ledger.total.energy_j
    ):
        charged_g = _charged_g(facts, seen, ledger.total.energy_j)
        if charged_g is not None:
            return Forgone(charged_g, emitted_g - charged_g, is_forecast=False)
    return Forgone(seen.emissions_g, seen.now_emissions_g - seen.emissions_g, is_forecast=True)


def _charged_g(facts: Account, seen: Observed, energy_j: float) -> float | None:
    """Grams of the plan's slots by the intensities that came; None where too few are known."""
    length_s = fsum((slot.end - slot.start).total_seconds() for slot in seen.slots)
    if length_s <= 0 or seen.now_energy_j <= 0:
        return None
    power_w, curves = energy_j * seen.energy_j / seen.now_energy_j / length_s, curves_of(facts)
    charges = [
        curves[slot.zone].charge(
            slot.start, slot.end, power_w * (slot.end - slot.start).total_seconds(), facts.zones[slot.zone].pue
        )
        for slot in seen.slots
        if slot.zone in facts.zones
    ]
    known_j = fsum(charge.known_j for charge in charges)
    if known_j < KNOWN_AT_LEAST * power_w * length_s:
        return None
    return fsum(charge.operational_g for charge in charges)
