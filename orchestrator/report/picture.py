"""One picture of a job: the grid's intensity, what ran where, and the power it drew, over one time axis.
In: a Report. Out: a PNG or SVG file, or the SVG's text for a page.
`page` puts it inside; `lowtide report` writes it beside the JSON.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from orchestrator.accounting.account import end_of, own_rows
from orchestrator.accounting.apportion import Apportioned
from orchestrator.accounting.charge import Curve
from orchestrator.accounting.ledger import curves_of
from orchestrator.report.build import Report
from orchestrator.report.ink import FAINT, FORECAST, INK, MUTED, PAPER, ZONES, element, inked
from orchestrator.report.power import power_of
from orchestrator.report.words import badges, energy, headline, summary, training_parts

CLEAN_TO_DIRTY = ("#d7efe6", "#f4efd9", "#ecc9a0", "#c98f63")
DRIVER = "#9aa5b1"
BARS = "#4b7fa3"
WORKERS_NAMED = 16
"""Beyond that the legend names the first and the last."""


def draw(report: Report, path: Path) -> None:
    """Write the picture to `path`, as its suffix says: .png or .svg."""
    with inked():
        _figure(report, titled=True).savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


def svg(report: Report) -> str:
    """The picture as an <svg> element for an HTML page: without a title, inked with the page's CSS variables."""
    return element(lambda: _figure(report, titled=False))


def _figure(report: Report, titled: bool) -> Any:
    from matplotlib.figure import Figure

    lanes = _zones(report)
    heights = (2.3, 0.34 * len(lanes) + 0.12, 1.45)
    strip_in = 0.95 if titled and report.ledger.phases else 0.0
    top_in, bottom_in = (0.95 if titled else 0.12), 0.52 + strip_in
    height_in = sum(heights) + top_in + bottom_in + 0.55
    figure = Figure(figsize=(10, height_in), facecolor=PAPER)
    grid, ran, power = figure.subplots(
        3,
        1,
        sharex=True,
        height_ratios=heights,
        gridspec_kw={"left": 0.075, "right": 0.83, "top": 1 - top_in / height_in, "bottom": bottom_in / height_in},
    )
    figure.subplots_adjust(hspace=0.16)
    span = _span(report)
    known = curves_of(report.facts)
    curves = {zone: known.get(zone, Curve(())) for zone in lanes}
    colours = {zone: ZONES[i % len(ZONES)] for i, zone in enumerate(lanes)}
    _draw_grid(grid, report, curves, colours, span)
    _draw_lanes(ran, report, curves, colours, span)
    _draw_power(power, report, span)
    _draw_time(power, span)
    if titled:
        _draw_title(figure, report, height_in)
    if strip_in:
        _draw_phases(figure.add_axes((0.075, 0.34 / height_in, 0.755, 0.3 / height_in)), report)
    return figure


def _zones(report: Report) -> list[str]:
    """The zones to show, those allowed first."""
    return list(dict.fromkeys([*report.facts.allowed, *(segment.zone for segment in report.facts.segments)]))


def _span(report: Report) -> tuple[datetime, datetime]:
    """From submission to the last thing that is shown, with a little air."""
    facts = report.facts
    ends = [end_of(segment, facts) for segment in facts.segments] + [facts.submitted_at + timedelta(seconds=60)]
    if facts.state not in ("done", "failed", "cancelled"):
        ends += [facts.at, *(slot.end for slot in facts.planned)]
    if report.savings.run_now is not None:
        ends.append(report.savings.run_now.end)
    air = (max(ends) - facts.submitted_at) * 0.015
    return facts.submitted_at - air, max(ends) + air


def _clipped(curve: Curve, start: datetime, end: datetime) -> list[tuple[datetime, datetime, float | None]]:
    return [
        (max(p.start, start), min(p.end, end), p.g_per_kwh) for p in curve.pieces if p.end > start and p.start < end
    ]


def _steps(pieces: list[tuple[datetime, datetime, float | None]]) -> tuple[list[datetime], list[float]]:
    """A step line's points; unknown stretches and holes break it."""
    times: list[datetime] = []
    values: list[float] = []
    for start, end, value in pieces:
        known = float("nan") if value is None else value
        if times and times[-1] != start:
            times.append(times[-1])
            values.append(float("nan"))
        times += [start, end]
        values += [known, known]
    return times, values


def _draw_grid(ax: Any, report: Report, curves: dict[str, Curve], colours: dict[str, str], span: Any) -> None:
    """Intensity by zone, dashed where only forecast; filled where the job ran, hatched where run-now would have."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    forecast = False
    for zone, colour in colours.items():
        pieces = [piece for piece in curves[zone].pieces if piece.end > span[0] and piece.start < span[1]]
        come = Curve(tuple(piece for piece in pieces if piece.kind != "forecast"))
        forecast = forecast or len(come.pieces) < len(pieces)
        ax.plot(*_steps(_clipped(curves[zone], *span)), color=colour, linewidth=1.1, linestyle=FORECAST)
        handles += ax.plot(*_steps(_clipped(come, *span)), color=colour, linewidth=1.7, label=zone)
    if forecast:
        handles.append(Line2D([], [], color=MUTED, linewidth=1.1, linestyle=FORECAST, label="forecast"))
    for segment in report.facts.segments:
        ran = _clipped(curves[segment.zone], segment.started_at, end_of(segment, report.facts))
        ax.fill_between(*_steps(ran), color=colours[segment.zone], alpha=0.32, linewidth=0)
    if report.facts.segments:
        handles.append(
            Patch(color=colours[report.facts.segments[0].zone], alpha=0.32, linewidth=0, label="the job ran")
        )
    now = report.savings.run_now
    if now is not None:
        hatched: dict[str, Any] = {"facecolor": "none", "edgecolor": MUTED, "hatch": "/////", "linewidth": 0}
        ax.fill_between(*_steps(_clipped(curves[now.zone], now.start, now.end)), **hatched)
        handles.append(Patch(**hatched, label=f"run-now: {now.zone} ×{now.workers}"))
    signals = sorted({piece.signal for curve in curves.values() for piece in curve.pieces})
    ax.set_ylabel(" and ".join(signals) + " intensity, g/kWh")
    _from_zero(ax, "" if signals else "no intensity known")
    _legend(ax, handles)


def _draw_lanes(ax: Any, report: Report, curves: dict[str, Curve], colours: dict[str, str], span: Any) -> None:
    """A lane for each zone, shaded from clean to dirty: segments solid, planned slots and run-now in outline."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Patch

    shade = LinearSegmentedColormap.from_list("clean to dirty", CLEAN_TO_DIRTY)
    pieces = {zone: _clipped(curves[zone], *span) for zone in colours}
    known = [value for own in pieces.values() for _, _, value in own if value is not None]
    norm = Normalize(min(known, default=0), max(known, default=1))
    for lane, zone in enumerate(colours):
        for start, end, value in pieces[zone]:
            if value is not None:
                ax.barh(lane, end - start, 0.86, start, color=shade(norm(value)), linewidth=0)
    order = list(colours)
    facts = report.facts
    outline = {"fill": False, "edgecolor": INK, "linewidth": 1, "linestyle": (0, (3, 2))}
    label = {"color": "white", "size": 8, "ha": "center", "va": "center", "weight": "bold"}
    for slot in facts.planned:
        if slot.zone in colours and slot.end > span[0] and slot.start < span[1]:
            ax.barh(order.index(slot.zone), slot.end - slot.start, 0.72, slot.start, **outline)
    for segment in facts.segments:
        length = end_of(segment, facts) - segment.started_at
        lane, colour = order.index(segment.zone), colours[segment.zone]
        ax.barh(lane, length, 0.56, segment.started_at, color=colour, edgecolor=PAPER, linewidth=0.8)
        if length > (span[1] - span[0]) * 0.035:
            middle = segment.started_at + length / 2
            ax.text(middle, lane, f"×{segment.workers}", **label)
    ax.set_yticks(range(len(order)), order)
    for name, zone in zip(ax.get_yticklabels(), order, strict=True):
        name.set(color=colours[zone], weight="bold")
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(axis="x", length=0)
    handles = [Patch(facecolor=CLEAN_TO_DIRTY[0], label="clean")]
    if facts.planned:
        handles.append(Patch(fill=False, edgecolor=INK, linestyle=(0, (2, 1)), label="planned"))
    _legend(ax, [*handles, Patch(facecolor=CLEAN_TO_DIRTY[-1], label="dirty")], columns=2)


def _draw_power(ax: Any, report: Report, span: Any) -> None:
    """Watts stacked by worker; grey where nobody could read."""
    import matplotlib as mpl
    from matplotlib.patches import Patch

    power = power_of(own_rows(report.facts))
    unit, scale = ("kW", 1e-3) if power.peak_w >= 2000 else ("W", 1.0)
    shades = mpl.colormaps["BuPu"]
    count = max(1, sum(rank != -1 for rank in power.watts))
    base = [0.0] * len(power.times)
    handles: list[Any] = []
    for position, (rank, watts) in enumerate(power.watts.items()):
        top = [low + watt * scale for low, watt in zip(base, watts, strict=True)]
        colour = DRIVER if rank == -1 else shades(0.76 - 0.4 * (position % count) / max(1, count - 1))
        ax.fill_between(power.times, base, top, step="post", color=colour, linewidth=0)
        name = "driver" if rank == -1 else f"rank {rank}" if rank is not None else "no rank"
        handles.append(Patch(color=colour, linewidth=0, label=name))
        base = top
    for start, end in power.unread:
        ax.axvspan(start, end, facecolor="none", edgecolor=FAINT, hatch="xxxx", linewidth=0)
    if power.unread:
        handles.append(Patch(facecolor="none", edgecolor=FAINT, hatch="xxxx", linewidth=0, label="unmetered"))
    if report.facts.state == "running" and span[0] < report.facts.at < span[1]:
        ax.axvline(report.facts.at, color=INK, linewidth=0.8, linestyle=":")
    _from_zero(ax, "" if power.peak_w else "nothing metered")
    ax.set_ylabel(f"power, {unit}" + (" (estimated)" if report.estimated else ""))
    many = len(handles) > WORKERS_NAMED
    _legend(ax, [handles[0], *handles[-2:]] if many else handles, columns=1 if many or len(handles) <= 6 else 2)


def _draw_phases(ax: Any, report: Report) -> None:
    """Joules by phase as one bar, the parts of a step within that of training: those are apportioned."""
    import matplotlib as mpl
    from matplotlib.patches import Patch

    shades = mpl.colormaps["BuPu"]
    left, handles = 0.0, []
    for position, (phase, energy_j) in enumerate(report.ledger.phases.items()):
        colour = BARS if phase == "train" else shades(0.2 + 0.1 * position)
        ax.barh(0, energy_j, 0.9, left, color=colour, linewidth=0)
        handles.append(Patch(color=colour, linewidth=0, label=f"{phase} {energy(energy_j)}"))
        if phase == "train" and report.training is not None:
            handles[-1].set_label(f"{handles[-1].get_label()}, its parts apportioned by time")
            _draw_parts(ax, report.training, left, report.ledger.total.energy_j)
        left += energy_j
    ax.set_xlim(0, left or 1)
    ax.set_axis_off()
    ax.set_title(
        "energy by phase" + (" (estimated)" if report.estimated else ""), loc="left", size=8.5, color=MUTED, pad=3
    )
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.05), ncols=len(handles), columnspacing=1.2)


_LETTER = 0.0095
"""Share of the bar's length that a letter of a part's name takes."""


def _draw_parts(ax: Any, training: Apportioned, left: float, total_j: float) -> None:
    """The parts of a step within the bar of phase train, each with its name where there is room."""
    for part, part_j in training_parts(training):
        ax.barh(0, part_j, 0.9, left, fill=False, edgecolor=PAPER, linewidth=0.8)
        if part_j > _LETTER * len(part) * total_j:
            ax.text(left + part_j / 2, 0, part, color=PAPER, size=7.5, ha="center", va="center")
        left += part_j


def _from_zero(ax: Any, missing: str) -> None:
    """Start the scale at zero; where there is nothing to scale, say so in words."""
    if missing:
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        box = {"facecolor": PAPER, "edgecolor": "none"}
        ax.text(0.5, 0.5, missing, transform=ax.transAxes, color=MUTED, size=10, ha="center", va="center", bbox=box)
    else:
        ax.set_ylim(bottom=0)


def _draw_time(ax: Any, span: tuple[datetime, datetime]) -> None:
    """Ticks of seconds in a demo, of hours or days on a cluster; the date stands once, at the left."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9, tz=timezone.utc)
    formatter = ConciseDateFormatter(locator, tz=timezone.utc, show_offset=False)
    formatter.formats = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
    formatter.zero_formats = ["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M:%S"]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(formatter)
    ax.set_xlim(*span)
    first, last = (edge.strftime("%Y-%m-%d") for edge in span)
    ax.set_xlabel(f"UTC, {first}" + ("" if first == last else f" to {last}"), loc="left")


def _draw_title(figure: Any, report: Report, height_in: float) -> None:
    title = headline(report)
    size = 14 if len(title) < 64 else 10
    figure.text(0.075, 1 - 0.24 / height_in, title, size=size, weight="bold", va="top")
    figure.text(0.075, 1 - 0.56 / height_in, summary(report), size=9.5, color=MUTED, va="top")
    box = {"boxstyle": "round,pad=0.35", "facecolor": "#fff3d6", "edgecolor": "#e0b34c", "linewidth": 0.8}
    for line, label in enumerate(badges(report)):
        top = 1 - (0.28 + 0.3 * line) / height_in
        figure.text(0.985, top, label, size=8.5, color="#7a5200", ha="right", va="top", bbox=box)


def _legend(ax: Any, handles: list[Any], columns: int = 1) -> None:
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.015, 1.0), ncols=columns, columnspacing=1.0)
