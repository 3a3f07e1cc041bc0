"""What a benchmark hands back: figures with their goals, tables, and remarks.
In: numbers that were measured. Out: Figures, Tables and Sections, as rich shows them and as JSON.
`tests.bench.__main__` prints them; a figure that misses its goal says so and fails nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    data: Path
    """Folder of the recorded grids; it may be absent."""
    whole: bool = False
    """Plan every start of the oracle's table instead of a sample."""
    rounds: int = 12
    """Turns of each side that throughput is measured by."""


@dataclass(frozen=True)
class Figure:
    """One number, in `unit`, with the goal that it should be at most, or at least; None where there is no bar."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def goal(self) -> str:
        """The goal in words."""
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}".rstrip()
        if self.at_least is not None:
            return f">= {self.at_least:g} {self.unit}".rstrip()
        return "none"


@dataclass(frozen=True)
class Table:
    """Rows under columns, as shown; numbers come as text in the precision that they deserve."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """What one benchmark found."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The section as plain values, each figure with its goal in words and whether it is met."""
        figures = [{**asdict(each), "goal": each.goal, "met": each.met} for each in self.figures]
        return {**asdict(self), "figures": figures}


def show(console: Console, section: Section) -> None:
    """Print the tables of a section, then its figures."""
    console.rule(f"{section.name}, {section.took_s:.0f} s")
    for each in section.tables:
        console.print(_table(each))
    if section.figures:
        rows = [(f.name, f"{f.value:.3g} {f.unit}".rstrip(), f.goal, _verdict(f.met), f.note) for f in section.figures]
        console.print(_table(Table("", ("figure", "measured", "goal", "met", ""), rows)))
    for remark in section.remarks:
        console.print(remark, highlight=False, markup=False)


def _verdict(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "NO"


def _table(table: Table) -> RichTable:
    shown = RichTable(title=table.title or None, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    return shown
