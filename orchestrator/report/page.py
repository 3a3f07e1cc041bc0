"""The report as one HTML file that needs nothing else: no script, no font, no request.
In: a Report. Out: HTML for a browser, light or dark, that prints on a sheet of A4.
`lowtide report` writes it beside the JSON; the web page links it.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from orchestrator.account import SegmentFacts, end_of
from orchestrator.charge import Charge
from orchestrator.report.build import Report, notes
from orchestrator.report.picture import svg
from orchestrator.report.words import (
    against_run_now,
    badges,
    beside,
    energy,
    grams,
    length,
    percent,
    progress,
    site_sentence,
    summary,
)


def page(report: Report) -> str:
    """The report as HTML text; every name in it that a user chose is escaped."""
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
        segments=sorted(report.facts.segments, key=lambda segment: segment.n),
        tone="" if saved_g is None else "good" if saved_g > 0 else "bad" if saved_g < 0 else "",
        verdict=against_run_now(report),
        summary=summary(report),
        site=site_sentence(report),
        beside=[(f"{name}, {what}", value) for name, value, what in beside(report)],
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
    environment.filters.update(energy=energy, grams=grams, percent=percent)
    return environment.get_template("page.html")
