"""Sharing a host's energy between its ranks, by CPU time and by their GPUs, so that in sum ranks + idle = host.
In: joules of an interval, core-seconds of the host and of each rank, weights of their GPUs. Out: joules of each.
`host` keeps one account for the processors and one for memory.

On a host without GPUs a rank bears its CPU time, and the rest is idle. On one with GPUs a rank that holds some bears,
of all that no other rank's CPU time explains, its part by the energy of its GPUs: cores and memory are there for the
GPUs, whoever's kernel thread feeds them. What GPUs of nobody weigh is idle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.meter.estimate import CoreWatts

RECENT = 0.9
"""Weight of earlier intervals in the price, by interval: some ten of them count."""


@dataclass(frozen=True)
class Weights:
    """How a host's common energy is shared: each rank's weight, and the idle account's."""

    ranks: Sequence[float]
    idle: float = 0.0

    def share(self, energy_j: float) -> tuple[list[float], float]:
        """`energy_j` of each rank and of the idle account, in sum exactly; all of it is idle where nobody weighs."""
        whole = math.fsum(self.ranks) + self.idle
        if whole <= 0:
            return [0.0 for _ in self.ranks], energy_j
        parts_j = [energy_j * weight / whole for weight in self.ranks]
        rest_j = energy_j - math.fsum(parts_j)
        if self.idle > 0:
            return parts_j, max(0.0, rest_j)
        heaviest = max(range(len(parts_j)), key=lambda index: self.ranks[index])
        parts_j[heaviest] += rest_j  # what rounding left
        return parts_j, 0.0


class Account:
    """Splits one device's energy into ranks by CPU time, and the rest; a waiting core weighs less than a busy one.

    The weights are the estimate's watts, so an estimated interval costs a rank its CPU time times its watts, and a
    measured one the same share of what was measured.

    CPU time that reaches the meter late (a process's time before it registered, a child found only now) was already
    booked to the rest as somebody else's. It is charged to its rank at the price of now, and the rest pays it back out
    of its coming energy; it never goes negative. Only a process that is older than the meter is charged for more than
    the rest was given: time from before the meter lived, owed by nobody.
    """

    def __init__(self, watts: CoreWatts, price: float = 0.0) -> None:
        self._watts = watts
        self._price_before = price
        self._recent_j = self._recent_estimate_j = 0.0
        self._reclaimable_j = 0.0
        self._owed_j = 0.0

    def split(self, host_j: float, busy_s: float, idle_s: float, ranks_s: Sequence[float]) -> tuple[list[float], float]:
        """Energy in J of each rank and of the rest, for core-seconds of one interval."""
        estimate_j = self._watts.cores_j(busy_s, idle_s)
        now_j_per_s = self._watts.busy_w_per_core * (host_j / estimate_j if estimate_j > 0 else 0.0)
        spent_s = math.fsum(ranks_s)
        timely_s = min(spent_s, busy_s)
        timely_j = min(host_j, now_j_per_s * timely_s)
        late_j = min(self._late_j(spent_s - timely_s), self._reclaimable_j)
        self._reclaimable_j += min(now_j_per_s * (busy_s - timely_s), host_j - timely_j) - late_j
        self._recent_j = RECENT * self._recent_j + host_j
        self._recent_estimate_j = RECENT * self._recent_estimate_j + estimate_j
        self._owed_j += late_j
        paid_j = min(self._owed_j, host_j - timely_j)
        self._owed_j -= paid_j
        return _in_proportion(timely_j + late_j, ranks_s, spent_s), host_j - timely_j - paid_j

    def admit(self, spent_s: float, seen: bool) -> float:
        """Energy in J of CPU time that a process spent before it registered; `seen` where all of it was metered."""
        energy_j = self._late_j(spent_s)
        claimed_j = min(energy_j, self._reclaimable_j)
        self._reclaimable_j -= claimed_j
        self._owed_j += claimed_j
        return claimed_j if seen else energy_j

    @property
    def price(self) -> float:
        """Joules of this device per joule of the estimate, over the last intervals: kernels count in coarse ticks."""
        return self._recent_j / self._recent_estimate_j if self._recent_estimate_j > 0 else self._price_before

    @property
    def owed_j(self) -> float:
        """What ranks were charged that the rest still has to pay back."""
        return self._owed_j

    def state(self) -> dict[str, float]:
        """The account as JSON."""
        return {"price": self.price, "reclaimable_j": self._reclaimable_j, "owed_j": self._owed_j}

    def resume(self, state: Mapping[str, float]) -> None:
        """Go on from what an earlier process kept."""
        self._price_before = float(state["price"])
        self._reclaimable_j, self._owed_j = float(state["reclaimable_j"]), float(state["owed_j"])

    def _late_j(self, spent_s: float) -> float:
        return self.price * self._watts.busy_w_per_core * spent_s


def _in_proportion(energy_j: float, ranks_s: Sequence[float], spent_s: float) -> list[float]:
    return [energy_j * rank_s / spent_s if spent_s > 0 else 0.0 for rank_s in ranks_s]
