"""One job's course by time: step, loss, watts, joules, grams and the grid's intensity, minute by minute.
In: a Report, and how far apart the points are. Out: a Run, whose last joules and grams are the report's.
The loggers write it; each keeps what it has written and goes on from there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from math import fsum

from cluster.api import MeterRow
from orchestrator.accounting.account import Account, own_rows
from orchestrator.accounting.charge import Charge, Curve
from orchestrator.accounting.ledger import curves_of
from orchestrator.report.build import Report

LAG = timedelta(seconds=90)
"""Of a job that runs, what is younger is left out: a meter's newest rows are up to a minute old when they come."""


@dataclass(frozen=True, slots=True)
class Point:
    """What is known at the end of a stretch of time; None is not known."""

    at: datetime
    step: int
    loss: float | None
    """The newest that was told in this stretch; None where none was."""
    power_w: float | None
    """Mean of all workers together; None where nobody read a meter."""
    energy_j: float
    """Since the job's first segment."""
    emissions_g: float | None
    """Operational, since then; None before any energy had an intensity."""
    g_per_kwh: float | None
    """Of the zone that the job is in, by which its energy is charged."""

    def values(self) -> dict[str, float]:
        """What is known, by the names under which loggers show it."""
        names = ("loss", "power_w", "energy_j", "emissions_g", "g_per_kwh")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Run:
    """One job as a logger's run."""

    job_id: str
    name: str
    project: str | None
    state: str
    points: tuple[Point, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    """What it is, in words: user, zones, and so on."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The report's figures, those that are known; empty until the job has ended."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing is to come but revisions."""
        return self.state in ("done", "failed", "cancelled")


def run_of(report: Report, every_s: float) -> Run:
    """The job as a run, with a point for each `every_s` seconds in which anything was metered or told."""
    facts = report.facts
    has_ended = facts.state in ("done", "failed", "cancelled")
    until = None if has_ended else facts.at - LAG
    points = tuple(point for point in _points(facts, every_s) if until is None or point.at <= until)
    about = {"job": facts.job_id, "zones": ", ".join(facts.allowed), "user": facts.user, "project": facts.project}
    return Run(
        job_id=facts.job_id,
        name=facts.name,
        project=facts.project,
        state=facts.state,
        points=points,
        about={name: value for name, value in about.items() if value},
        figures=_figures(report) if has_ended else {},
    )


def _figures(report: Report) -> dict[str, float]:
    efficiency = report.efficiency
    found = {
        "energy_j": report.ledger.total.energy_j,
        "emissions_g": report.ledger.emissions_g,
        "run_now_emissions_g": report.savings.run_now.emissions_g if report.savings.run_now else None,
        "saved_g": report.savings.saved_g,
        "saved_percent": report.savings.saved_percent,
        "per_sample_j": efficiency.per_sample_j if efficiency else None,
        "per_token_j": efficiency.per_token_j if efficiency else None,
        "flop_per_j": efficiency.flop_per_j if efficiency else None,
        **{name: report.facts.metrics.get(name) for name in ("loss", "holdout_loss")},
    }
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _points(facts: Account, every_s: float) -> Iterator[Point]:
    """Sums so far at the end of each stretch; a row's joules lie evenly in it, and are charged where they lie."""
    charges: dict[int, list[Charge]] = defaultdict(list)
    curves = curves_of(facts)
    zones = {segment.segment_id: segment.zone for segment in facts.segments}
    for row in own_rows(facts):
        for stretch, start, end, energy_j in _pieces(row, every_s):
            zone = zones.get(row.segment_id or "", "")
            if zone in facts.zones:
                charges[stretch].append(curves[zone].charge(start, end, energy_j, facts.zones[zone].pue))
            else:
                charges[stretch].append(Charge(energy_j))
    losses = {_stretch(each.at, every_s): each for each in facts.losses}
    so_far: list[Charge] = []
    for stretch in sorted(charges.keys() | losses.keys()):
        at = datetime.fromtimestamp((stretch + 1) * every_s, tz=timezone.utc)
        drawn = Charge.total(charges[stretch]) if stretch in charges else None
        so_far = [Charge.total([*so_far, *charges.get(stretch, [])])]
        told = losses.get(stretch)
        yield Point(
            at=at,
            step=_step(facts, at),
            loss=told.loss if told is not None else None,
            power_w=drawn.energy_j / every_s if drawn is not None else None,
            energy_j=so_far[0].energy_j,
            emissions_g=so_far[0].operational_g if so_far[0].known_j else None,
            g_per_kwh=_intensity(facts, curves, at - timedelta(seconds=every_s), at),
        )


def _pieces(row: MeterRow, every_s: float) -> Iterator[tuple[int, datetime, datetime, float]]:
    """The row cut at the edges of the stretches; one that nobody could read has no pieces."""
    if row.energy_j is None:
        return
    length_s = (row.end - row.start).total_seconds()
    if length_s <= 0:
        yield _stretch(row.start, every_s), row.start, row.end, row.energy_j
        return
    start = row.start
    while start < row.end:
        stretch = _stretch(start, every_s)
        edge = datetime.fromtimestamp((stretch + 1) * every_s, tz=timezone.utc)
        end = min(row.end, edge) if edge > start else row.end
        yield stretch, start, end, row.energy_j * ((end - start).total_seconds() / length_s)
        start = end


def _stretch(at: datetime, every_s: float) -> int:
    return math.floor(at.timestamp() / every_s)


def _step(facts: Account, at: datetime) -> int:
    """The newest step that was told of by then; before the first, where the segment began."""
    known = bisect_right(facts.losses, at, key=lambda each: each.at)
    begun = [segment.start_step for segment in facts.segments if segment.started_at <= at]
    return facts.losses[known - 1].step if known else begun[-1] if begun else 0


def _intensity(facts: Account, curves: Mapping[str, Curve], start: datetime, end: datetime) -> float | None:
    """The mean of what is known of the stretch, in the zone of the segment that ran last in it."""
    ran = [segment for segment in facts.segments if segment.started_at < end]
    if not ran or ran[-1].zone not in curves:
        return None
    found = curves[ran[-1].zone].overlaps(start, end)
    known = fsum(share for _, share in found)
    return fsum(share * (piece.g_per_kwh or 0.0) for piece, share in found) / known if known else None
