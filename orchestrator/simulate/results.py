"""Every task by every policy, summed: what each policy emits, saves, and asks in patience.
In: a Setting, Tasks, policies. Out: Results: a row for each policy, and the outcomes they sum.
The command shows them as a table, JSON and a page.

Savings are against `now` with perfect foresight, whatever plans are made by: the fixed zone and worker count that
emits least when started at once and still meets the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from orchestrator.simulate.follow import Outcome, follow
from orchestrator.simulate.setting import Setting, Task

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
class Results:
    """What a simulation found."""

    setting: Setting
    outcomes: Mapping[str, Sequence[Outcome]]
    """By policy, in the tasks' order."""
    baseline: Sequence[Outcome]
    rows: Sequence[Row]

    @property
    def notes(self) -> list[str]:
        """What readers must know of the figures."""
        unknown_h = max(sum(each.unknown_s for each in outcomes) for outcomes in self.outcomes.values()) / 3600
        if not unknown_h:
            return []
        return [
            f"up to {unknown_h:.1f} h of a policy's runs have no intensity in the record; "
            "they are charged at the worst known of their run"
        ]

    def to_json(self) -> dict[str, Any]:
        """The contract's rows, and the notes."""
        return {"rows": [asdict(row) for row in self.rows], "notes": self.notes}


def simulate(
    setting: Setting, tasks: Sequence[Task], policies: Sequence[str], after_each: Callable[[], None] = lambda: None
) -> Results:
    """Run every task by every policy; `after_each` is called after each of them, the baseline's included.

    Raises InputError where a policy does not exist.
    """

    def runs(where: Setting, policy: str) -> list[Outcome]:
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
    return Results(setting, outcomes, baseline, rows)


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
