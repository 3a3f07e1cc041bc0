"""What many jobs drew and emitted so far, all at once: of each only these figures, and each grid is read once.
In: a session, the site, jobs. Out: joules and grams by job, those that their ledgers say.
`status` shows them, and passes ask for those of jobs with a budget; a test holds that a report says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from jobs.spec import InputError
from orchestrator.accounting.account import Account, Intensity
from orchestrator.accounting.charge import Charge, Curve
from orchestrator.accounting.ledger import add_up, emitted_g
from orchestrator.site import Site
from orchestrator.store import facts
from orchestrator.store.accounts import (
    account_of,
    intensity_of,
    said_of,
    segment_facts,
    to_come,
    transfers_of,
    zone_facts,
)
from orchestrator.store.facts import Drawn
from orchestrator.store.jobs import segments_by_job
from orchestrator.store.schema import Job, Segment

_AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class Emitted:
    """Figures of one job."""

    energy_j: float
    known_j: float
    """Of which so much has an intensity."""
    emissions_g: float | None
    """As far as they are known; None where no energy has an intensity."""


def emitted(session: Session, site: Site, submitted_at: Mapping[str, datetime], now: datetime) -> dict[str, Emitted]:
    """The figures of these jobs, each with the moment of its submission."""
    segments = segments_by_job(session, list(submitted_at))
    drawn = facts.drawn_by_time(session, list(segments))
    ran_in = {segment.zone for own in segments.values() for segment in own}
    first = min((submitted_at[job_id] for job_id in segments), default=now)
    grids = {zone: _Grid.of(session, site, zone, first, now) for zone in ran_in}
    found = {}
    for job_id, since in submitted_at.items():
        own = segments.get(job_id, [])
        told = _emitted(job_id, since, own, drawn.get(job_id, []), site, grids, now)
        shares = any(zone_facts(site, segment.zone).node_overhead_w is not None for segment in own)
        found[job_id] = _with_overhead(session, site, job_id, now, told) if shares else told
    return found


def _with_overhead(session: Session, site: Site, job_id: str, now: datetime, told: Emitted) -> Emitted:
    """The figures of a job that bears a share of its nodes' overhead: who else was there, only its ledger says."""
    try:
        ledger = add_up(account_of(session, site, session.get_one(Job, job_id), now))
    except InputError:
        return replace(told, emissions_g=None)  # its spec cannot be read, which its own line says
    return Emitted(ledger.total.energy_j, ledger.total.known_j, ledger.emissions_g)


def _emitted(
    job_id: str,
    since: datetime,
    segments: Sequence[Segment],
    drawn: Sequence[Drawn],
    site: Site,
    grids: Mapping[str, _Grid],
    now: datetime,
) -> Emitted:
    zones = {segment.id: segment.zone for segment in segments}
    curves = {zone: grids[zone].curve(since) for zone in set(zones.values())}
    charges = []
    for each in drawn:
        zone = zones.get(each.segment_id or "")
        if zone is None:
            charges.append(Charge(each.energy_j))
        else:
            charges.append(curves[zone].charge(each.start, each.end, each.energy_j, zone_facts(site, zone).pue))
    total = Charge.total(charges)
    account = Account(
        job_id=job_id,
        name=job_id,
        state="",
        at=now,
        submitted_at=since,
        zones={zone: zone_facts(site, zone) for zone in curves},
        allowed=(),
        segments=[segment_facts(segment) for segment in segments],
        transfers=transfers_of(segments, site),
    )
    return Emitted(total.energy_j, total.known_j, emitted_g(account, total, curves))


@dataclass(frozen=True)
class _Grid:
    """What charges in a zone: one curve for all jobs, where all that was said of it is of one signal."""

    zone: str
    site: Site
    known: Sequence[Intensity]
    whole: Curve | None

    @staticmethod
    def of(session: Session, site: Site, zone: str, first: datetime, now: datetime) -> _Grid:
        rows = said_of(session, site, zone, first, now + _AHEAD)
        known = [*map(intensity_of, rows), *to_come(session, site, [zone])]
        mixed = len({intensity.signal for intensity in known}) > 1
        return _Grid(zone, site, known, None if mixed else Curve.of(zone, known, zone_facts(site, zone)))

    def curve(self, since: datetime) -> Curve:
        """The curve of a job that was submitted then: which signal charges depends on what there was since."""
        if self.whole is not None:
            return self.whole
        known = [intensity for intensity in self.known if intensity.end > since]
        return Curve.of(self.zone, known, zone_facts(self.site, self.zone))
