"""The report for the terminal: the savings, segments, workers, phases and totals, with rich.
In: a Report. Out: something that a rich Console prints, at any width, with or without colour.
`lowtide report` and `lowtide run` print it; scripts take `build`'s JSON instead.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.accounting.account import end_of
from orchestrator.accounting.charge import Charge
from orchestrator.report.build import Report, notes
from orchestrator.report.words import (
    COLOURS,
    UNKNOWN,
    beside,
    device,
    energy,
    grams,
    length,
    moment,
    moves,
    percent,
    progress,
    sentence,
    site_sentence,
    training_parts,
)

SHARE_CELLS = 16
UUID_CELLS = 12
"""Enough of a GPU's UUID to know it by; the JSON has all of it."""


def text(report: Report) -> RenderableType:
    """The whole report; estimates are labelled wherever they show."""
    saved_g = report.savings.saved_g
    colour = "green" if saved_g is not None and saved_g > 0 else "yellow"
    head = Text.assemble((report.facts.name, "bold"), "  ", progress(report))
    parts: list[RenderableType] = [head, Text(sentence(report), style=f"bold {colour}")]
    parts += [Text(line) for line in [site_sentence(report)] if line] + [Text()]
    if report.facts.segments:
        parts += [_segments(report), Text()]
    if report.ledger.workers:
        parts += [_workers(report), Text(), _phases(report), Text()]
    parts.append(_totals(report))
    parts += [Text(f"! {note}", style="yellow") for note in notes(report)]
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    """Columns whose name starts with `>` are figures, set flush right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        figure = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if figure else "left", header_style="dim", no_wrap=figure)
    return table


def _segments(report: Report) -> Table:
    columns = (">#", ">start", ">length", "zone", ">workers", "reason", "ended", ">energy", ">CO₂e")
    table = _table(f"Segments ({report.facts.submitted_at.year}, UTC)", *columns)
    table.padding = (0, 1, 0, 0)
    for segment in sorted(report.facts.segments, key=lambda segment: segment.n):
        charge = report.ledger.segments.get(segment.segment_id, Charge())
        end = end_of(segment, report.facts)
        table.add_row(
            str(segment.n),
            moment(segment.started_at),
            length((end - segment.started_at).total_seconds()),
            segment.zone,
            str(segment.workers),
            segment.reason,
            segment.ended or "(running)",
            energy(charge.energy_j),
            grams(charge.emissions_g),
        )
    return table


def _workers(report: Report) -> Table:
    table = _table("Workers", ">rank", "node", "device", "source", ">energy", ">share", "")
    for worker, energy_j in report.ledger.workers.items():
        name = "driver" if worker.rank == -1 else UNKNOWN if worker.rank is None else str(worker.rank)
        source = Text(worker.source, style=COLOURS.get(worker.source, ""))
        table.add_row(name, worker.node, device(worker)[:UUID_CELLS], source, *_share(energy_j, report))
    return table


def _phases(report: Report) -> Table:
    table = _table("Phases" + (" (with estimates)" if report.estimated else ""), "phase", ">energy", ">share", "")
    for phase, energy_j in report.ledger.phases.items():
        table.add_row(phase, *_share(energy_j, report))
        if phase == "train" and report.training is not None:
            for part, part_j in training_parts(report.training):
                table.add_row(Text(f"  {part}", style=COLOURS["apportioned"]), *_share(part_j, report, part=True))
    if report.training is not None:
        table.caption = "parts of train: apportioned by time"
        table.caption_justify = "left"
    return table


def _share(energy_j: float, report: Report, part: bool = False) -> tuple[str, str, Text]:
    share = energy_j / report.ledger.total.energy_j if report.ledger.total.energy_j else 0.0
    cell, colour = ("▒", COLOURS["apportioned"]) if part else ("█", "blue")
    return energy(energy_j), percent(100 * share), Text(cell * round(share * SHARE_CELLS), style=colour)


def _totals(report: Report) -> Table:
    ledger, now = report.ledger, report.savings.run_now
    table = _table("Totals", "", ">", "")
    table.show_header = False
    source = f"{percent(report.estimated_percent)} estimated" if report.estimated else "metered"
    table.add_row("energy", energy(ledger.total.energy_j), source)
    pue = UNKNOWN if ledger.pue is None else f"PUE {ledger.pue:.2f}"
    table.add_row("operational CO₂e", grams(ledger.total.emissions_g), pue)
    if ledger.overhead is not None:
        table.add_row("overhead CO₂e", grams(ledger.overhead.emissions_g), f"nodes, {energy(ledger.overhead.energy_j)}")
    table.add_row("embodied CO₂e", grams(ledger.embodied_g), "" if ledger.embodied_g is not None else "no figure given")
    table.add_row("transfer CO₂e", grams(ledger.transfer_g), moves(report))
    table.add_row(Text("total CO₂e", style="bold"), Text(grams(ledger.emissions_g), style="bold"), "")
    if now is not None:
        place = f"{now.zone} ×{now.workers}, {moment(now.start)} to {moment(now.end)}"
        table.add_row("run-now CO₂e", grams(now.emissions_g), place)
    if (seen := report.forgone) is not None:
        by = "by the forecast" if seen.is_forecast else "by what came"
        table.add_row("with a plan", grams(seen.emissions_g), f"{percent(seen.saved_percent)} less, {by}")
    if report.savings.saved_g is not None:
        table.add_row("saved CO₂e", grams(report.savings.saved_g), percent(report.savings.saved_percent))
        table.add_row("saved by the site", grams(report.site_saved_g), _left(report))
    for row in beside(report):
        table.add_row(*row)
    signal = " and ".join(ledger.signals) or "no intensity"
    covers = f"covers {percent(ledger.coverage_percent)} of the energy, {percent(ledger.measured_percent)} as measured"
    table.add_row("signal", signal, f"{', '.join(ledger.providers) or UNKNOWN}; {covers}")
    if ledger.unmetered_s:
        table.add_row("unmetered", length(ledger.unmetered_s), "worker-seconds without a reading")
    return table


def _left(report: Report) -> str:
    if report.left.emissions_g is None:
        return "not known"
    return f"less {grams(report.left.emissions_g)} of GPUs left idle" if report.left.energy_j else "no GPU left idle"
