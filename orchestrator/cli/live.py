"""The live view of one job in the foreground: progress, grid, plan, state and watts.
In: the store, read once a second. Out: a panel that redraws itself, or lines where stdout is no terminal.
`run` and `demo` show it while they drive the job.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.desk import Desk
from orchestrator.controller import utcnow
from orchestrator.plan.problem import Plan
from orchestrator.plan.record import read
from orchestrator.signal.forecast import Forecast
from orchestrator.store import draws, forecasts
from orchestrator.store.emitted import emitted
from orchestrator.store.jobs import running_segment
from orchestrator.store.schema import Job

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = 48
_AHEAD_SLOTS = 24
_RECENT_SLOTS = 2
_LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class Snapshot:
    """What the view shows at one moment."""

    now: datetime
    job: Job
    zone: str | None
    workers: int
    plan: Plan | None
    forecasts: dict[str, Forecast]
    power_w: dict[int, float]
    energy_j: float
    emissions_g: float | None


class Live:
    """Use it as a context; `update` once a pass."""

    def __init__(self, at: Desk, job_id: str) -> None:
        self._at, self._job_id = at, job_id
        self._console = Console()
        self._live = RichLive(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._last_line, self._last_at = "", 0.0

    def __enter__(self) -> Live:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Show how the job stands now."""
        seen = self._snapshot()
        if self._live is not None:
            self._live.update(panel(seen, self._at.site.slot_s), refresh=True)
            return
        line = one_line(seen)
        changed = _without_figures(line) != _without_figures(self._last_line)
        if changed or time.monotonic() - self._last_at >= _LINE_EVERY_S:
            self._console.print(f"{seen.now:%H:%M:%S}  {line}", highlight=False, soft_wrap=True)
            self._last_line, self._last_at = line, time.monotonic()

    def leave(self, text: str) -> None:
        """Say a last word below the view."""
        self._console.print(text)

    def _snapshot(self) -> Snapshot:
        now = utcnow()
        recent = now - timedelta(seconds=max(30.0, _RECENT_SLOTS * min(60.0, self._at.site.slot_s)))
        with self._at.store.read() as session:
            job = session.get_one(Job, self._job_id)
            segment = running_segment(session, job.id)
            figures = emitted(session, self._at.site, {job.id: job.submitted_at}, now)[job.id]
            return Snapshot(
                now=now,
                job=job,
                zone=segment.zone if segment else None,
                workers=segment.workers if segment else 0,
                plan=read(job.plan) if job.plan else None,
                forecasts=forecasts.newest(session),
                power_w=draws.power_w(session, [segment.id], recent).get(segment.id, {}) if segment else {},
                energy_j=figures.energy_j,
                emissions_g=figures.emissions_g,
            )


def panel(seen: Snapshot, slot_s: float) -> Panel:
    """The whole view."""
    job = seen.job
    head = Text.assemble((f" {job.state} ", f"bold white on {_colour(job.state)}"), "  ", job.reason)
    steps = Table.grid(padding=(0, 2))
    steps.add_row(
        ProgressBar(total=job.steps or 1, completed=job.step, width=_COLUMNS),
        f"step {job.step}/{job.steps or '?'}",
        f"loss {job.metrics['loss']:.3f}" if "loss" in job.metrics else "",
    )
    body: list[RenderableType] = [head, steps, *_grids(seen, slot_s), _figures(seen)]
    return Panel(Group(*body), title=job.id, subtitle=f"{seen.now:%H:%M:%S} UTC")


def one_line(seen: Snapshot) -> str:
    """The view as one line, for logs."""
    job = seen.job
    intensity = _now_text(seen)
    watts = f", {sum(seen.power_w.values()):.0f} W" if seen.power_w else ""
    return f"{job.state}: step {job.step}/{job.steps or '?'}{watts}, {intensity}; {job.reason}"


def _without_figures(line: str) -> str:
    """The state and the first words of the reason: what a reader of a log waits for."""
    state, reason = line.split(": ", 1)[0], line.split("; ", 1)[-1]
    return f"{state} {reason.split(':', 1)[0]}"


def _now_text(seen: Snapshot) -> str:
    zones = [seen.zone] if seen.zone else list(seen.forecasts)
    told = []
    for zone in zones:
        intensity = seen.forecasts[zone].at(seen.now) if zone in seen.forecasts else None
        told.append(f"{zone} {'unknown' if intensity is None else f'{intensity:.0f} g/kWh'}")
    return ", ".join(told) or "no forecast yet"


def _grids(seen: Snapshot, slot_s: float) -> list[Table]:
    """A line a zone: what comes, and below it where the plan runs."""
    table = Table.grid(padding=(0, 2))
    edges = [seen.now + timedelta(seconds=slot_s * _AHEAD_SLOTS * i / _COLUMNS) for i in range(_COLUMNS + 1)]
    values = {z: [f.mean(a, b)[0] for a, b in zip(edges, edges[1:], strict=False)] for z, f in seen.forecasts.items()}
    known = [v for curve in values.values() for v in curve if v is not None]
    if not known:
        return [table]
    low, high = min(known), max(known)
    for zone, curve in values.items():
        line, band = Text(), Text()
        for value, moment in zip(curve, edges, strict=False):
            slot = seen.plan.at(moment) if seen.plan else None
            band.append("━" if slot is not None and slot.zone == zone else " ", style="cyan")
            if value is None:
                line.append("?", style="dim")
                continue
            share = (value - low) / (high - low) if high > low else 0.0
            style = "green" if share < 1 / 3 else "yellow" if share < 2 / 3 else "red"
            line.append(_BARS[min(7, int(share * 8))], style=style)
        stale = " (stale)" if seen.forecasts[zone].stale else ""
        now = seen.forecasts[zone].at(seen.now)
        table.add_row(line, f"{zone} {'unknown' if now is None else f'{now:.0f} g/kWh'} now{stale}")
        table.add_row(band, "planned to run")
    return [table]


def _figures(seen: Snapshot) -> Text:
    watts = ", ".join(f"{_who(rank)} {w:.0f} W" for rank, w in sorted(seen.power_w.items())) or "no power drawn"
    grams = "unknown" if seen.emissions_g is None else f"{seen.emissions_g:.3g} g"
    text = f"{watts}   {seen.energy_j / 1000:.2f} kJ   {grams} CO2eq"
    if seen.plan is not None:
        text += f"   planned to save {seen.plan.saved_percent:.0f} % (basis: {seen.plan.basis})"
    return Text(text)


def _who(rank: int) -> str:
    return "driver" if rank < 0 else f"rank {rank}"


def _colour(state: str) -> str:
    return {"running": "green", "pausing": "yellow", "paused": "blue", "failed": "red", "done": "green"}.get(
        state, "grey37"
    )
