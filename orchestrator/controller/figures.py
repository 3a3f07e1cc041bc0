"""Grams and savings of jobs, derived from their ledgers in turns: an account costs a pass ten milliseconds.
In: the store, the jobs that are asked about. Out: each one's Figure, the oldest of them made anew in each pass.
`gauges` publishes them; joules, steps and watts are read anew in every pass.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from jobs.spec import InputError
from orchestrator.accounting.ledger import add_up
from orchestrator.accounting.run_now import savings
from orchestrator.site import Site
from orchestrator.store.accounts import account_of
from orchestrator.store.schema import Job

SPENT_S = 0.25
"""Seconds of a pass that go into accounts; at least one is made."""
_AGED = timedelta(minutes=10)
"""So old a figure is made anew though its job drew nothing since: intensities are revised."""


@dataclass(frozen=True)
class Figure:
    """Grams of one job, as its ledger had them when `energy_j` had been drawn."""

    at: datetime
    energy_j: float
    emissions_g: float | None
    saved_g: float | None


class Figures:
    """The newest figures of the jobs that a controller publishes; `spent_s` bounds what a pass does for them."""

    def __init__(self, spent_s: float = SPENT_S) -> None:
        self._spent_s = spent_s
        self._known: dict[str, Figure] = {}

    def of(
        self, session: Session, site: Site, job_ids: Collection[str], energy_j: Mapping[str, float], now: datetime
    ) -> Mapping[str, Figure]:
        """The figures of these jobs by id; one whose turn has not come yet is absent, or from an earlier pass."""
        asked = set(job_ids)
        self._known = {job_id: figure for job_id, figure in self._known.items() if job_id in asked}
        until_s = time.monotonic() + self._spent_s
        due = [job_id for job_id in job_ids if self._is_due(job_id, energy_j.get(job_id, 0.0), now)]
        oldest = datetime.min.replace(tzinfo=now.tzinfo)
        for job_id in sorted(due, key=lambda job_id: self._known[job_id].at if job_id in self._known else oldest):
            try:
                account = account_of(session, site, session.get_one(Job, job_id), now)
            except InputError:  # its spec cannot be read, as its reason says: it has no figures
                continue
            ledger = add_up(account)
            saved_g = savings(account, ledger).saved_g if ledger.emissions_g is not None else None
            self._known[job_id] = Figure(now, energy_j.get(job_id, 0.0), ledger.emissions_g, saved_g)
            if time.monotonic() >= until_s:
                break
        return self._known

    def _is_due(self, job_id: str, energy_j: float, now: datetime) -> bool:
        known = self._known.get(job_id)
        return known is None or known.energy_j != energy_j or now - known.at >= _AGED
