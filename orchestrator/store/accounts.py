"""One job's facts, gathered from the store for its report.
In: a session, the site and a job. Out: an Account of plain values.
The ledger adds it up; `report`, `status` and the metrics show the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import cast, get_args

from sqlalchemy.orm import Session

from cluster.api import Ended, MeterRow, Reason
from orchestrator.accounting.account import Account, Intensity, Neighbour, SegmentFacts, Transfer, ZoneFacts
from orchestrator.plan.record import observed_in, read
from orchestrator.signal.chain import PURPOSES
from orchestrator.signal.forecast import Kind, Signal
from orchestrator.site import Site
from orchestrator.store import facts, forecasts, progress
from orchestrator.store.jobs import segments_of, spec_of
from orchestrator.store.schema import IntensityRow, Job, Segment

_STEP = "step."
"""What the names of the parts of a step begin with, among a segment's seconds by part."""


def account_of(session: Session, site: Site, job: Job, now: datetime, whole: bool = False) -> Account:
    """The facts of this job as they are known at `now`; `whole` adds what only a report shows, not what it charges."""
    spec = spec_of(job)
    segments = segments_of(session, job.id)
    allowed = site.zones_for(spec)
    ran_in = {segment.zone for segment in segments}
    zones = {zone: zone_facts(site, zone) for zone in {*allowed, *ran_in}}
    end = job.ended_at or now
    # Run-now may end later than the job has come, and it is charged too.
    end += end - job.submitted_at + timedelta(hours=1)
    said = [row for zone in sorted(zones) for row in said_of(session, site, zone, job.submitted_at, end)]
    rows = facts.rows_of(session, job.id)
    shared = [] if all(zone.node_overhead_w is None for zone in zones.values()) else rows
    return Account(
        job_id=job.id,
        name=job.name,
        state=job.state,
        at=job.ended_at or now,
        submitted_at=job.submitted_at,
        zones=zones,
        allowed=allowed,
        step=job.step,
        steps=job.steps,
        metrics=job.metrics,
        segments=[
            segment_facts(segment, _silent_hosts(session, segment, rows) if whole else None) for segment in segments
        ],
        rows=rows,
        intensities=[*map(intensity_of, said), *to_come(session, site, zones)],
        transfers=transfers_of(segments, site),
        planned=read(job.plan).slots if job.plan else (),
        observed=observed_in(job.plan) if job.plan else None,
        neighbours=_neighbours(session, job.id, shared, now),
        beside=facts.drawn_beside(session, job.id, shared) if shared else (),
        left_rows=facts.left_rows(session, job.id, rows) if whole else (),
        losses=progress.points(session, job.id) if whole else (),
        marginal=_by_signal(session, "marginal", zones, job.submitted_at, end) if whole else (),
        average=_by_signal(session, "average", zones, job.submitted_at, end) if whole else (),
        batch_size=spec.training.batch_size if spec.training else None,
        sequence_length=spec.data.sequence_length if spec.data else None,
        project=spec.project,
        user=spec.user,
        generated_grid=any("generated" in (row.note or "") for row in said),
    )


def said_of(session: Session, site: Site, zone: str, start: datetime, end: datetime) -> Sequence[IntensityRow]:
    """What charges: where a zone names who it is charged by, or plans by another signal, their words alone."""
    known = site.zones.get(zone)
    is_strict = known is not None and (known.charges_apart or bool(known.charge_by))
    providers = known.charging if known is not None and is_strict else None
    return facts.intensities(session, zone, start, end, providers)


def transfers_of(segments: Sequence[Segment], site: Site) -> list[Transfer]:
    """Checkpoints that came from another zone, each charged once, to the zone that it left.

    A segment says what it read and where. One that was lost says nothing: then the next one of its zone tells, for it
    finds the checkpoint there or brings it itself; where none does, or it found it, the size of the newest checkpoint
    before stands.
    """
    found: list[Transfer] = []
    size: int | None = None
    source: str | None = None
    silent: Transfer | None = None
    for before, segment in pairwise(segments):
        size = before.checkpoint_bytes or size
        source = before.zone if before.ended != "lost" else source
        if silent is not None and (segment.zone != silent.to_zone or not segment.moved_bytes):
            found.append(silent)
        silent = None
        left = _left(segment, source, site)
        if left is None or left == segment.zone:
            continue
        if segment.moved_bytes:
            duration_s = segment.parts_s.get("transfer")
            found.append(Transfer(segment.ordered_at, left, segment.moved_bytes, segment.zone, duration_s))
        elif segment.moved_bytes is None and segment.restore_from is not None:
            silent = Transfer(segment.ordered_at, left, size, segment.zone)
    return found if silent is None else [*found, silent]


def _left(segment: Segment, source: str | None, site: Site) -> str | None:
    """The zone that a segment's checkpoint came from: the last one that saved it, unless it lay elsewhere."""
    if segment.moved_from is None:
        return source
    zones = [zone for zone in site.zones if segment.moved_from in site.places(zone, segment.job_id)]
    return source if source in zones or not zones else zones[0]


def _neighbours(session: Session, job_id: str, rows: Sequence[MeterRow], now: datetime) -> list[Neighbour]:
    """Who else was on the hosts of these rows."""
    others = facts.segments_beside(session, job_id, rows) if rows else []
    return [Neighbour(host, segment.job_id, segment.ordered_at, segment.ended_at or now) for host, segment in others]


def _by_signal(
    session: Session, signal: Signal, zones: Iterable[str], start: datetime, end: datetime
) -> list[Intensity]:
    """All intensities of one kind of the zones, also where the other kind charges."""
    said = (row for zone in sorted(zones) for row in facts.intensities(session, zone, start, end))
    return [intensity_of(row) for row in said if row.signal == signal]


def to_come(session: Session, site: Site, zones: Iterable[str]) -> Iterator[Intensity]:
    """The newest forecasts: run-now of a job that runs, or that ended early, reaches beyond what has been."""
    newest = {purpose: forecasts.newest(session, purpose) for purpose in PURPOSES}
    for zone in zones:
        apart = zone in site.zones and site.zones[zone].charges_apart
        forecast = newest["charge" if apart else "plan"].get(zone)
        if forecast is None:
            continue
        for point in forecast.points:
            yield Intensity(
                zone=zone,
                start=point.start,
                end=point.end,
                g_per_kwh=facts.said_g_per_kwh(point),
                kind=point.kind,
                provider=forecast.provider,
                signal=forecast.signal,
                fetched_at=forecast.fetched_at,
            )


def zone_facts(site: Site, zone: str) -> ZoneFacts:
    """What the site file says of a zone, for its ledger; nothing of one that is not in it any more."""
    known = site.zones.get(zone)
    if known is None:
        return ZoneFacts()
    return ZoneFacts(
        pue=known.pue_by_time,
        embodied_g_per_gpu_hour=known.embodied_g_per_gpu_hour,
        charged_by=tuple(known.charging),
        mix=known.mix,
        transfer_j_per_byte=known.transfer_j_per_byte,
        wue_l_per_kwh=known.wue_l_per_kwh,
        node_overhead_w=known.node_overhead_w,
    )


def _silent_hosts(session: Session, segment: Segment, rows: Sequence[MeterRow]) -> frozenset[str]:
    if segment.ended != "lost" or segment.ended_at is None:
        return frozenset()
    return facts.silent_hosts(session, [row for row in rows if row.segment_id == segment.id], segment.ended_at)


def segment_facts(segment: Segment, silent_hosts: frozenset[str] | None = None) -> SegmentFacts:
    """A segment as its ledger takes it; `silent_hosts` are those whose meters died with it."""
    assert segment.reason in get_args(Reason)
    return SegmentFacts(
        segment_id=segment.id,
        n=segment.n,
        zone=segment.zone,
        workers=segment.workers,
        reason=cast(Reason, segment.reason),
        started_at=segment.ordered_at,
        ended_at=segment.ended_at,
        ended=cast("Ended | None", segment.ended),
        start_step=segment.start_step,
        end_step=segment.step,
        gpus=segment.gpus,
        trained_s=segment.trained_s or None,
        first_step_s=segment.parts_s.get("first_step"),
        step_parts_s={
            name.removeprefix(_STEP): part_s for name, part_s in segment.parts_s.items() if name.startswith(_STEP)
        },
        parts_s={name: part_s for name, part_s in segment.parts_s.items() if not name.startswith(_STEP)},
        power_limit_w=segment.ran_as[1],
        silent_hosts=silent_hosts or frozenset(),
    )


def intensity_of(row: IntensityRow) -> Intensity:
    """What was said of a slot, as it charges."""
    return Intensity(
        zone=row.zone,
        start=row.start,
        end=row.end,
        g_per_kwh=row.g_per_kwh,
        kind=cast(Kind, row.kind),
        provider=row.provider,
        signal=cast(Signal, row.signal),
        fetched_at=row.fetched_at,
    )
