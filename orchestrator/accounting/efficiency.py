"""Joules of training by sample and by token, and the floating-point operations that a joule did.
In: an Account and its Ledger. Out: an Efficiency; None where the spec gives no batch, or where too little was metered.
The report shows it, so that runs of one model can be compared whatever the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from orchestrator.accounting.account import Account, own_rows

UNMETERED_AT_MOST = 0.01
LEAST_PER_TOKEN_J = 1e-12
"""Of less than that no sensor tells anything, and its inverse is no figure."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Of phase train alone: loading, checkpoints and evaluation are left out, steps done twice are counted twice."""

    per_sample_j: float
    per_token_j: float | None
    flops_per_token: float | None = None
    """The model's own, as the workers counted them from its config: see jobs/flops.py; None where they could not."""

    @property
    def samples_per_j(self) -> float:
        """Samples trained by a joule."""
        return 1 / self.per_sample_j

    @property
    def tokens_per_j(self) -> float | None:
        """Tokens trained by a joule."""
        return None if self.per_token_j is None else 1 / self.per_token_j

    @property
    def flop_per_j(self) -> float | None:
        """Floating-point operations of the model by a joule: its FLOPs a token over the joules a token."""
        if self.flops_per_token is None or self.per_token_j is None:
            return None
        return self.flops_per_token / self.per_token_j


def efficiency_of(facts: Account) -> Efficiency | None:
    """Joules of phase train / (steps trained x batch size), and by token with the sequence length.

    A segment that runs is left out where others have ended, for its newest rows are still with the meters.
    """
    ended = [segment for segment in facts.segments if segment.ended_at is not None]
    segments = {segment.segment_id for segment in ended or facts.segments}
    rows = [row for row in own_rows(facts) if row.phase == "train" and row.segment_id in segments]
    blind_s = fsum((row.end - row.start).total_seconds() for row in rows if row.energy_j is None)
    seconds = fsum((row.end - row.start).total_seconds() for row in rows)
    energy_j = fsum(row.energy_j or 0.0 for row in rows)
    steps = sum(max(0, s.end_step - s.start_step) for s in facts.segments if s.segment_id in segments)
    if not facts.batch_size or not steps or blind_s > UNMETERED_AT_MOST * seconds:
        return None
    per_sample_j = energy_j / (steps * facts.batch_size)
    if per_sample_j < LEAST_PER_TOKEN_J * (facts.sequence_length or 1):
        return None
    per_token_j = per_sample_j / facts.sequence_length if facts.sequence_length else None
    return Efficiency(per_sample_j, per_token_j, facts.metrics.get("flops_per_token"))
