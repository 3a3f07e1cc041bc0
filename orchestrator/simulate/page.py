"""A simulation as one HTML file that needs nothing else: no script, no font, no request.
In: Results and what was asked. Out: HTML for a browser, light or dark.
`lowtide simulate --html` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from orchestrator.report.words import energy, grams
from orchestrator.simulate.picture import svg
from orchestrator.simulate.results import Results, Row


def page(results: Results, asked: Mapping[str, str]) -> str:
    """The page as text; `asked` is shown as it is, name by value, escaped."""
    best = max(results.rows, key=lambda row: row.saved_percent)
    return _template().render(results=results, verdict=_verdict(best), asked=asked, picture=Markup(svg(results)))


def _verdict(best: Row) -> str:
    if abs(best.saved_percent) < 0.05:
        return "Nothing to save here"
    return f"{abs(best.saved_percent):.1f} % {'less' if best.saved_percent > 0 else 'more'} with {best.policy}"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("orchestrator", "simulate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(energy=energy, grams=grams)
    return environment.get_template("page.html")
