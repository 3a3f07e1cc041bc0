"""The report as one HTML file that needs nothing else: no script, no font, no request.
In: a Report. Out: HTML for a browser, light or dark, that prints on a sheet of A4.
`lowtide report` writes it beside the JSON; the web page links it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import fsum

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from orchestrator.accounting.account import SegmentFacts, end_of
from orchestrator.accounting.charge import Charge
from orchestrator.accounting.ledger import Ledger, Worker
from orchestrator.report.build import Report, notes
from orchestrator.report.picture import svg
from orchestrator.report.words import (
    against_run_now,
    badges,
    beside,
    device,
    energy,
    grams,
    length,
    moves,
    percent,
    progress,
    site_sentence,
    summary,
    training_parts,
)

BARS_AT_MOST = 10
SEGMENTS_AT_MOST = 8
"""So that the page prints on one sheet; the JSON and the CSV have all of them."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the workers' energy."""

    name: str
    source: str
    title: str
    energy_j: float


def bars(ledger: Ledger) -> list[Bar]:
    """Energy by worker and device; of many by rank alone, and of more ranks than fit the rest as one."""
    found = [
        Bar(_name(worker), worker.source, f"{worker.node} {device(worker)}", energy_j)
        for worker, energy_j in ledger.workers.items()
    ]
    if len(found) > BARS_AT_MOST:
        by_rank: dict[str, list[Bar]] = {}
        for worker, bar in zip(ledger.workers, found, strict=True):
            by_rank.setdefault(_rank(worker.rank), []).append(bar)
        found = [_joined(name, parts) for name, parts in by_rank.items()]
    if len(found) > BARS_AT_MOST:
        rest = found[BARS_AT_MOST - 1 :]
        found = [*found[: BARS_AT_MOST - 1], _joined(f"{len(rest)} more", rest)]
    return found


def _joined(name: str, parts: Sequence[Bar]) -> Bar:
    sources = " ".join(dict.fromkeys(part.source for part in parts))
    return Bar(name, sources, ", ".join(part.title for part in parts), fsum(part.energy_j for part in parts))


def _name(worker: Worker) -> str:
    """The rank, and that it is its memory where that is metered by itself."""
    return _rank(worker.rank) + (", memory" if worker.device == "dram" else "")


def _rank(rank: int | None) -> str:
    return "driver" if rank == -1 else "no rank" if rank is None else f"rank {rank}"


def _against(report: Report) -> list[tuple[str, float, float, str]]:
    """The job's grams and run-now's, each with its width of the greater of them in percent; empty without savings."""
    own_g, now = report.ledger.emissions_g, report.savings.run_now
    if report.savings.saved_g is None or own_g is None or now is None or max(own_g, now.emissions_g) <= 0:
        return []
    unit_g = max(own_g, now.emissions_g) / 100
    kind = "less" if own_g <= now.emissions_g else "more"
    bars = (("this job", own_g, kind), (f"run-now, {now.zone} ×{now.workers}", now.emissions_g, "now"))
    return [(name, emissions_g, round(emissions_g / unit_g, 2), kind) for name, emissions_g, kind in bars]


def page(report: Report) -> str:
    """The report as HTML text; every name in it that a user chose is escaped."""
    segments = sorted(report.facts.segments, key=lambda segment: segment.n)
    total_j, saved_g = report.ledger.total.energy_j, report.savings.saved_g

    def share(energy_j: float) -> float:
        return round(100 * energy_j / total_j, 2) if total_j else 0.0

    def length_of(segment: SegmentFacts) -> str:
        return length((end_of(segment, report.facts) - segment.started_at).total_seconds())

    def charge_of(segment: SegmentFacts) -> Charge:
        return report.ledger.segments.get(segment.segment_id, Charge())

    return _template().render(
        report=report,
        ledger=report.ledger,
        now=report.savings.run_now,
        segments=segments[-SEGMENTS_AT_MOST:],
        earlier=max(0, len(segments) - SEGMENTS_AT_MOST),
        tone="" if saved_g is None else "good" if saved_g > 0 else "bad" if saved_g < 0 else "",
        verdict=against_run_now(report),
        summary=summary(report),
        site=site_sentence(report),
        beside=beside(report),
        workers=bars(report.ledger),
        against=_against(report),
        parts=training_parts(report.training) if report.training is not None else [],
        progress=progress(report),
        badges=badges(report),
        notes=notes(report),
        picture=Markup(svg(report)),
        share=share,
        length_of=length_of,
        charge_of=charge_of,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("orchestrator", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(energy=energy, grams=grams, moves=moves, percent=percent)
    return environment.get_template("page.html")
