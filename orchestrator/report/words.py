"""A report's figures as people read them: units that fit, the sentence on savings, times.
In: SI figures, a Report. Out: short texts; an unknown figure is an en dash, never a zero.
`text`, `page` and `picture` print them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import floor

from cluster.api import Source
from orchestrator.accounting.apportion import Apportioned
from orchestrator.accounting.charge import J_PER_KWH
from orchestrator.accounting.efficiency import Efficiency
from orchestrator.accounting.ledger import Worker
from orchestrator.accounting.pauses import Took
from orchestrator.report.build import Report

UNKNOWN = "–"
SHOWN_SHARE = 0.05
"""Parts of a start that take less of it are summed up as `other`."""
COLOURS: dict[Source, str] = {"estimated": "yellow", "apportioned": "cyan"}
"""How a source of joules shows that no sensor read just these: an estimate, or a share of what one read."""


def figures(value: float, places: int = 3) -> str:
    """`value` to so many significant figures, plainly: no exponent, thousands apart."""
    if value == 0:
        return "0"
    exponent = int(f"{abs(value):.{places - 1}e}".split("e")[1])
    return f"{round(value, places - 1 - exponent):,.{max(0, places - 1 - exponent)}f}".replace(",", "\u202f")


def energy(energy_j: float | None) -> str:
    """Joules as J or kJ below a watt hour's order, then Wh, kWh, MWh."""
    if energy_j is None:
        return UNKNOWN
    wh = energy_j / J_PER_KWH * 1000
    for limit_j, unit, value in (
        (1e3, "J", energy_j),
        (1e4, "kJ", energy_j / 1e3),
        (3.6e6, "Wh", wh),
        (3.6e9, "kWh", wh / 1e3),
    ):
        if abs(energy_j) < limit_j:
            return f"{figures(value)} {unit}"
    return f"{figures(wh / 1e6)} MWh"


def grams(emissions_g: float | None) -> str:
    """Grams of CO2 equivalent as mg, g, kg or t."""
    if emissions_g is None:
        return UNKNOWN
    for limit_g, unit, value in (
        (1.0, "mg", emissions_g * 1e3),
        (1e3, "g", emissions_g),
        (1e6, "kg", emissions_g / 1e3),
    ):
        if abs(emissions_g) < limit_g:
            return f"{figures(value)} {unit}" if emissions_g else "0 g"
    return f"{figures(emissions_g / 1e6)} t"


def flop(value: float | None) -> str:
    """Floating-point operations as FLOP, kFLOP and so on, to PFLOP."""
    if value is None:
        return UNKNOWN
    for unit, one in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= one:
            return f"{figures(value / one)} {unit}FLOP"
    return f"{figures(value)} FLOP"


def device(worker: Worker) -> str:
    """What drew: a GPU by its UUID, memory where it is metered by itself, else the device's own name."""
    return worker.uuid or {"dram": "memory"}.get(worker.device, worker.device)


def percent(value: float | None) -> str:
    """A share, to the tenth below 10 % and just below 100 %, where the tenths say whether something is missing."""
    if value is None:
        return UNKNOWN
    if value and abs(value) < 0.1:
        return f"{'-' if value < 0 else ''}<0.1 %"
    if 99 < value < 100:
        return f"{floor(value * 10) / 10:.1f} %"
    return f"{value:.0f} %" if abs(value) >= 9.95 or not value else f"{value:.1f} %"


def moment(at: datetime) -> str:
    """UTC month, day and time to the second; the year stands elsewhere."""
    return at.strftime("%m-%d %H:%M:%S")


def length(duration_s: float) -> str:
    """`42 s`, `3 min 12 s`, `5 h 03 min`, `2 d 04 h`."""
    whole = round(duration_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def headline(report: Report) -> str:
    """The one sentence: the job's name and what it saved, or emitted, or that nothing is known yet."""
    return f"{report.facts.name}: {against_run_now(report)}"


def against_run_now(report: Report) -> str:
    """What was saved against run-now; more than run-now is said as plainly as less."""
    compared, ledger = report.savings, report.ledger
    if compared.saved_g is None or compared.saved_percent is None:
        if ledger.total.energy_j:
            return f"{grams(ledger.emissions_g)} CO₂e emitted"
        return "its energy could not be metered" if ledger.unmetered_s else "nothing metered yet"
    if abs(compared.saved_percent) < 0.05:
        return "as much as run-now"
    return f"{percent(abs(compared.saved_percent))} {'less' if compared.saved_g > 0 else 'more'} than run-now"


def sentence(report: Report) -> str:
    """The savings with both figures: `38 % less than run-now (12.3 g instead of 19.9 g)`."""
    compared = report.savings
    if compared.saved_g is None or compared.run_now is None:
        return against_run_now(report)
    instead = f"{grams(report.ledger.emissions_g)} instead of {grams(compared.run_now.emissions_g)}"
    return f"{against_run_now(report)} ({instead})"


def site_sentence(report: Report) -> str:
    """What the site saved, beside what is attributed to the job; empty where one of them is not known."""
    saved_g, left_j = report.site_saved_g, report.left.energy_j
    if saved_g is None or left_j is None:
        return ""
    if not left_j:
        return f"The site saved as much ({grams(saved_g)}): no GPU that the job left stood idle."
    idle = f"{energy(left_j)} ({grams(report.left.emissions_g)})"
    kept = f"saved {grams(saved_g)}" if saved_g >= 0 else f"emitted {grams(-saved_g)} more"
    return f"With the {idle} that its GPUs drew idle in its pauses, the site {kept}."


def moves(report: Report) -> str:
    """How many checkpoints left their zone, with their bytes and seconds, such as `2 moves, 1.4 GB in 38 s`."""
    found = report.facts.transfers
    if not found:
        return ""
    count = "1 move" if len(found) == 1 else f"{len(found)} moves"
    taken_s = _sum([move.duration_s for move in found])
    told = f"{count}, {size(_sum([move.moved_bytes for move in found]))}"
    return told if taken_s is None else f"{told} in {figures(taken_s) + ' s' if taken_s < 60 else length(taken_s)}"


def took(found: Took) -> str:
    """A mean start or stop by its parts, the longest first, such as `imports 4.1, workers 2.2, other 0.8 s`."""
    least_s = SHOWN_SHARE * found.mean_s
    shown = sorted(((s, part) for part, s in found.parts_s.items() if s >= least_s), reverse=True)
    rest_s = found.mean_s - sum(s for s, _ in shown)
    told = [f"{part.replace('_', ' ')} {s:.1f}" for s, part in shown] + [f"other {rest_s:.1f}"] * (rest_s >= 0.05)
    return f"{', '.join(told)} s{f'; mean of {found.count}' if found.count > 1 else ''}"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def size(size_bytes: float | None) -> str:
    """Bytes, as `1.4 GB`."""
    if size_bytes is None:
        return UNKNOWN
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{figures(size_bytes / factor)} {unit}"
    return f"{size_bytes:.0f} B"


def beside(report: Report) -> list[tuple[str, str, str]]:
    """Figures beside the account, with what they are: revisions, the other signal's grams, water, efficiency."""
    found: list[tuple[str, str, str]] = []
    if report.revised_g:
        found.append(("revised by", signed_grams(report.revised_g), "since intensities were first known"))
    if report.marginal_g is not None and "average" in report.ledger.signals:
        found.append(("by marginal", grams(report.marginal_g), "operational; for scheduling only"))
    if report.average_g is not None and "marginal" in report.ledger.signals:
        found.append(("by average", grams(report.average_g), "operational; location-based"))
    if report.ledger.water_l is not None:
        found.append(("water", f"{figures(report.ledger.water_l)} L", "at the site"))
    for name, mean in (("a start", report.starts), ("a stop", report.stops)):
        if mean is not None:
            found.append((name, f"{mean.mean_s:.1f} s", took(mean)))
    return found if report.efficiency is None else [*found, *_training(report.efficiency)]


def _training(found: Efficiency) -> list[tuple[str, str, str]]:
    token = "" if found.per_token_j is None else f"{figures(found.per_token_j)} J/token, "
    samples = f"{token}{figures(found.samples_per_j)} samples/J"
    lines = [("training", f"{figures(found.per_sample_j)} J/sample", samples)]
    if found.flop_per_j is not None:
        lines.append(("work", f"{flop(found.flop_per_j)}/J", f"the model's {flop(found.flops_per_token)} a token"))
    return lines


def training_parts(found: Apportioned) -> list[tuple[str, float]]:
    """The parts of a step with their joules, and the rest of the training, whose parts are not known."""
    rest = [("not known", found.unknown_j)] if found.unknown_j else []
    return [*found.parts_j.items(), *rest]


def signed_grams(emissions_g: float) -> str:
    """Grams with their sign: a revision's."""
    return grams(emissions_g) if emissions_g <= 0 else f"+{grams(emissions_g)}"


def summary(report: Report) -> str:
    """One line under the headline: grams, joules, state and step."""
    facts, compared = report.facts, report.savings
    parts = []
    if compared.saved_g is not None and compared.run_now is not None:
        parts.append(f"{grams(report.ledger.emissions_g)} CO₂e instead of {grams(compared.run_now.emissions_g)}")
    if report.ledger.total.energy_j:
        parts.append(energy(report.ledger.total.energy_j))
    count = len(facts.segments)
    parts += [progress(report), f"{count} segment{'' if count == 1 else 's'}"]
    return "  ·  ".join(parts)


def progress(report: Report) -> str:
    """State and step: `running, step 120 of 400`."""
    facts = report.facts
    if facts.steps is None:
        return f"{facts.state}, step {facts.step}" if facts.step else facts.state
    return f"{facts.state}, step {facts.step:,} of {facts.steps:,}".replace(",", "\u202f").replace(
        "\u202f step", ", step"
    )


def badges(report: Report) -> list[str]:
    """Labels that stand beside every picture and table of figures that are not fully real."""
    marks = ("energy estimated", report.estimated), ("generated grid", report.generated_grid)
    return [word for word, holds in marks if holds]
