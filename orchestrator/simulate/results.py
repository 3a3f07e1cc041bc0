"""Every task by every policy, summed: what each policy emits, saves, and asks in patience.
In: a Setting, Tasks, policies. Out: Results: a row for each policy, and the outcomes they sum.
The command shows them as a table, JSON and a page.

Savings are against `now` with perfect foresight, whatever plans are made by: the fixed zone and worker count that
emits least when started at once and still meets the deadline. In a fleet that is `now` within the GPUs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from orchestrator.simulate.follow import Outcome, follow
from orchestrator.simulate.setting import Setting, Task
from orchestrator.simulate.together import TOGETHER, bound_g, follow_fleet

BASELINE = "now"


@dataclass(frozen=True)
class Row:
    """One policy; `emissions_g` and `energy_j` are sums over the runs."""

    policy: str
    runs: int
    emissions_g: float
    energy_j: float
    saved_percent: float
    """Of the baseline's emissions; negative where the policy emits more."""
    mean_wait_h: float
    """Mean time from submission to finish in which the job did not run."""
    missed_deadlines: int
    switches: int
    """Starts after the first, of all runs."""


@dataclass(frozen=True)
class Proven:
    """How far from the least grams a fleet that was planned together can be at most; None is not known."""

    bound_g: float | None = None
    """No plans that meet every deadline emit less, though they knew every job from the start."""
    gap_percent: float | None = None
    """How much more than the bound it emits; not known where it misses a deadline, or the bound is not."""


@dataclass(frozen=True)
class Results:
    """What a simulation found."""

    setting: Setting
    outcomes: Mapping[str, Sequence[Outcome]]
    """By policy, in the tasks' order."""
    baseline: Sequence[Outcome]
    rows: Sequence[Row]
    fleet: Proven | None = None
    """Where tasks share GPUs and `optimal` plans by what comes."""

    @property
    def notes(self) -> list[str]:
        """What readers must know of the figures."""
        unknown_h = max(sum(each.unknown_s for each in outcomes) for outcomes in self.outcomes.values()) / 3600
        said = []
        if unknown_h:
            said.append(
                f"up to {unknown_h:.1f} h of a policy's runs have no intensity in the record; "
                "they are charged at the worst known of their run"
            )
        if self.fleet is not None and self.fleet.bound_g is None:
            said.append(
                "nothing is proven of the fleet: that needs plans that meet every deadline, at most 2,900 slots, "
                "intensities that are all known, and a --slot no longer than the steps of the traces"
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """The contract's rows, the bound of a fleet, and the notes."""
        fleet = None if self.fleet is None else asdict(self.fleet)
        return {"rows": [asdict(row) for row in self.rows], "fleet": fleet, "notes": self.notes}


def simulate(
    setting: Setting, tasks: Sequence[Task], policies: Sequence[str], after_each: Callable[[], None] = lambda: None
) -> Results:
    """Run every task by every policy; `after_each` is called after each of them, the baseline's included.

    Where the setting has GPUs, the tasks share them. Raises InputError where a policy does not exist.
    """

    def runs(where: Setting, policy: str) -> list[Outcome]:
        if where.gpus is not None:
            return follow_fleet(where, tasks, policy, after_each)
        found = []
        for task in tasks:
            found.append(follow(where, task, policy))
            after_each()
        return found

    known = replace(setting, zones={name: replace(zone, forecast=None) for name, zone in setting.zones.items()})
    baseline = runs(known, BASELINE)
    outcomes = {
        policy: baseline if policy == BASELINE and setting.foresees else runs(setting, policy) for policy in policies
    }
    rows = [_row(policy, found, baseline) for policy, found in outcomes.items()]
    proven = None
    if setting.gpus is not None and setting.foresees and TOGETHER in outcomes:
        proven = _proven(setting, tasks, outcomes[TOGETHER])
    return Results(setting, outcomes, baseline, rows, proven)


def _proven(setting: Setting, tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> Proven:
    least_g = bound_g(setting, tasks)
    if least_g is None or least_g <= 0 or any(each.missed_deadline for each in outcomes):
        return Proven(least_g)
    return Proven(least_g, 100.0 * (sum(each.emissions_g for each in outcomes) / least_g - 1.0))


def runs_of(setting: Setting, tasks: Sequence[Task], policies: Sequence[str]) -> int:
    """How often `simulate` calls `after_each`."""
    return len(tasks) * (len(policies) + (0 if setting.foresees and BASELINE in policies else 1))


def _row(policy: str, outcomes: Sequence[Outcome], baseline: Sequence[Outcome]) -> Row:
    emissions_g = sum(each.emissions_g for each in outcomes)
    base_g = sum(each.emissions_g for each in baseline)
    return Row(
        policy=policy,
        runs=len(outcomes),
        emissions_g=emissions_g,
        energy_j=sum(each.energy_j for each in outcomes),
        saved_percent=100.0 * (base_g - emissions_g) / base_g if base_g else 0.0,
        mean_wait_h=fmean(each.wait_s for each in outcomes) / 3600 if outcomes else 0.0,
        missed_deadlines=sum(each.missed_deadline for each in outcomes),
        switches=sum(each.switches for each in outcomes),
    )
