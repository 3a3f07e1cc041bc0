"""The joules of training by part of a step: data, forward, backward, optimizer, communication.
In: an Account, whose segments told where their steps' time went. Out: joules by part, which sum to phase train.
The report shows them beside the measured phases, as `apportioned`: by time, for no sensor resolves a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum

from orchestrator.accounting.account import Account, own_rows

STEP_PARTS = ("data", "forward", "backward", "optimizer", "communication")
"""In the order of a step; the workers tell seconds of them as `step.data` and so on."""


@dataclass(frozen=True)
class Apportioned:
    """Joules of phase train by part of a step; `unknown_j` is of segments that told no seconds, as one that runs."""

    parts_j: Mapping[str, float]
    unknown_j: float

    @property
    def energy_j(self) -> float:
        """All of phase train."""
        return fsum((*self.parts_j.values(), self.unknown_j))


def apportioned(facts: Account) -> Apportioned | None:
    """Each segment's joules of phase train by its own shares of time; None where no segment told any.

    A part draws what the average of its segment's training draws: where the optimizer leaves a GPU idler than the
    backward pass does, its true joules are fewer.
    """
    drawn: dict[str | None, list[float]] = defaultdict(list)
    for row in own_rows(facts):
        if row.phase == "train" and row.energy_j is not None:
            drawn[row.segment_id].append(row.energy_j)
    told = {each.segment_id: each.step_parts_s for each in facts.segments if fsum(each.step_parts_s.values()) > 0}
    if not told.keys() & drawn.keys():
        return None
    parts: dict[str, list[float]] = {part: [] for part in STEP_PARTS}
    unknown: list[float] = []
    for segment_id, joules in drawn.items():
        parts_s = told.get(segment_id or "")
        if parts_s is None:
            unknown += joules
            continue
        energy_j, whole_s = fsum(joules), fsum(parts_s.values())
        for part in STEP_PARTS:
            parts[part].append(energy_j * (parts_s.get(part, 0.0) / whole_s))
    return Apportioned({part: fsum(found) for part, found in parts.items()}, fsum(unknown))
