"""A month of the site's jobs, added up by project, user or zone.
In: the jobs' Accounts and the month. Out: a table as data, and for the terminal.
`lowtide report --month` shows it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from math import fsum
from typing import Any, Literal, get_args

from rich.table import Table
from rich.text import Text

from cluster.api import MeterRow
from jobs.spec import InputError
from orchestrator.accounting.account import Account, SegmentFacts, end_of, own_rows
from orchestrator.accounting.ledger import Ledger, add_up
from orchestrator.report.words import UNKNOWN, energy, figures, grams, percent

By = Literal["project", "user", "zone"]
SUMS = ("energy_j", "operational_g", "overhead_g", "embodied_g", "transfer_g", "emissions_g", "water_l", "unmetered_s")


@dataclass(frozen=True)
class Line:
    """One project, user or zone (None is not named), with what its jobs drew and emitted in the month."""

    name: str | None
    jobs: frozenset[str]
    ledgers: tuple[Ledger, ...] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """SI units named in the keys; null where no part is known."""
        parts = [_figures(ledger) for ledger in self.ledgers]
        known_j = fsum(ledger.total.known_j for ledger in self.ledgers)
        energy_j = fsum(part["energy_j"] or 0.0 for part in parts)
        return {
            "name": self.name,
            "jobs": len(self.jobs),
            **{key: _sum(part[key] for part in parts) for key in SUMS},
            "coverage_percent": 100 * known_j / energy_j if energy_j else None,
        }


def _figures(ledger: Ledger) -> dict[str, float | None]:
    return {
        "energy_j": ledger.total.energy_j,
        "operational_g": ledger.total.emissions_g,
        "overhead_g": ledger.overhead.emissions_g if ledger.overhead is not None else None,
        "embodied_g": ledger.embodied_g,
        "transfer_g": ledger.transfer_g,
        "emissions_g": ledger.emissions_g,
        "water_l": ledger.water_l,
        "unmetered_s": ledger.unmetered_s,
    }


def _sum(parts: Iterable[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return fsum(known) if known else None


def month_of(text: str) -> tuple[datetime, datetime]:
    """The UTC month of `2026-11`, half-open; InputError where it is none."""
    try:
        start = datetime.strptime(text, "%Y-%m").replace(tzinfo=timezone.utc)
    except ValueError:
        raise InputError(f"--month: {text!r} is no month; write e.g. 2026-11") from None
    return start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


def by_of(text: str) -> By:
    """`project`, `user` or `zone`; InputError for another word."""
    for by in get_args(By):
        if by == text:
            return by  # type: ignore[no-any-return]
    raise InputError(f"--by: {text!r} is unknown; choose from {', '.join(get_args(By))}")


def lines(accounts: Iterable[Account], start: datetime, end: datetime, by: By) -> list[Line]:
    """What the jobs drew in [start, end), a line for each project, user or zone, by name."""
    jobs: dict[str | None, set[str]] = defaultdict(set)
    ledgers: dict[str | None, list[Ledger]] = defaultdict(list)
    for account in accounts:
        for zone, part in _by_zone(within(account, start, end)):
            name = {"project": account.project, "user": account.user, "zone": zone}[by]
            jobs[name].add(account.job_id)
            ledgers[name].append(add_up(part))
    order = sorted(ledgers, key=lambda name: (name is None, name or ""))
    return [Line(name, frozenset(jobs[name]), tuple(ledgers[name])) for name in order]


def total_of(found: Sequence[Line]) -> Line:
    """All lines as one."""
    ledgers = tuple(ledger for line in found for ledger in line.ledgers)
    return Line("total", frozenset().union(*(line.jobs for line in found)), ledgers)


def within(account: Account, start: datetime, end: datetime) -> Account:
    """The account of what was in [start, end): rows and segments are cut at the edges, energy evenly over its row."""
    segments = [cut for segment in account.segments if (cut := _cut(segment, account, start, end)) is not None]
    return replace(
        account,
        rows=[part for row in own_rows(account) if (part := _cut_row(row, start, end)) is not None],
        segments=segments,
        transfers=[transfer for transfer in account.transfers if start <= transfer.at < end],
    )


def _cut(segment: SegmentFacts, account: Account, start: datetime, end: datetime) -> SegmentFacts | None:
    begins, ends = max(segment.started_at, start), min(end_of(segment, account), end)
    if ends < begins or begins >= end:
        return None
    runs_on = segment.ended_at is None and account.at <= end
    return replace(segment, started_at=begins, ended_at=None if runs_on else ends)


def _cut_row(row: MeterRow, start: datetime, end: datetime) -> MeterRow | None:
    if row.end <= row.start:
        return row if start <= row.start < end else None
    begins, ends = max(row.start, start), min(row.end, end)
    if ends <= begins:
        return None
    share = (ends - begins) / (row.end - row.start)
    return replace(row, start=begins, end=ends, energy_j=None if row.energy_j is None else row.energy_j * share)


def _by_zone(account: Account) -> Iterator[tuple[str | None, Account]]:
    """The account zone by zone, each with its own segments, rows and moves; rows of no segment have no zone."""
    zone_of = {segment.segment_id: segment.zone for segment in account.segments}
    rows: dict[str | None, list[MeterRow]] = defaultdict(list)
    for row in own_rows(account):
        rows[zone_of.get(row.segment_id or "")].append(row)
    named = {*zone_of.values(), *(transfer.zone for transfer in account.transfers)}
    for zone in sorted(named | rows.keys(), key=lambda zone: zone or ""):
        segments = [segment for segment in account.segments if segment.zone == zone]
        moves = [transfer for transfer in account.transfers if transfer.zone == zone]
        yield zone, replace(account, segments=segments, rows=rows[zone], transfers=moves)


def table(month: str, by: By, found: Sequence[Line], idle_j: float | None) -> Table:
    """The lines for people, with their sum."""
    shown = Table(title=f"{month} by {by}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    shown.add_column(by, header_style="dim")
    for name in ("jobs", "energy", "CO₂e", "of it embodied", "water", "covered"):
        shown.add_column(name, justify="right", header_style="dim", no_wrap=True)
    for line in [*found, total_of(found)]:
        document = line.to_json()
        water = UNKNOWN if document["water_l"] is None else f"{figures(document['water_l'])} L"
        cells = (
            line.name or UNKNOWN,
            str(document["jobs"]),
            energy(document["energy_j"]),
            grams(document["emissions_g"]),
            grams(document["embodied_g"]),
            water,
            percent(document["coverage_percent"]),
        )
        shown.add_row(*(Text(cell, style="bold" if line.name == "total" else "") for cell in cells))
    if idle_j is not None:
        shown.caption = f"Hosts drew {energy(idle_j)} besides that no job held: the site's idle account."
        shown.caption_justify = "left"
    return shown
