"""A simulation as one picture: the grid and every policy's run of one start, and what each policy saved.
In: Results. Out: an <svg> element for a page.
`page` puts it inside. The start that is shown is the one whose savings are the median of its policies' best.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from orchestrator.plan import Stretch
from orchestrator.report.ink import FAINT, FORECAST, INK, PAPER, ZONES, element
from orchestrator.simulate.follow import Outcome
from orchestrator.simulate.results import Results


def svg(results: Results) -> str:
    """The picture as an element inked with the page's CSS variables."""
    return element(lambda: _figure(results))


def example(results: Results) -> int:
    """The number of the start whose savings, by the policy that emits least in all, are the median."""
    best = min(results.rows, key=lambda row: row.emissions_g).policy
    pairs = zip(results.outcomes[best], results.baseline, strict=True)
    saved = [1.0 - each.emissions_g / base.emissions_g if base.emissions_g else 0.0 for each, base in pairs]
    return sorted(range(len(saved)), key=lambda number: saved[number])[len(saved) // 2]


def _figure(results: Results) -> Any:
    from matplotlib.figure import Figure

    lanes = len(results.rows)
    heights = (2.2, 0.42 * lanes + 0.1, 0.6, 0.3 * lanes + 0.1)
    height_in = sum(heights) + 1.1
    figure = Figure(figsize=(10, height_in), facecolor=PAPER)
    grid, ran, _, saved = axes = figure.subplots(
        4,
        1,
        height_ratios=heights,
        gridspec_kw={"left": 0.11, "right": 0.86, "top": 1 - 0.12 / height_in, "bottom": 0.5 / height_in},
    )
    figure.subplots_adjust(hspace=0.1)
    axes[2].axis("off")
    number = example(results)
    shown = {policy: outcomes[number] for policy, outcomes in results.outcomes.items()}
    task = next(iter(shown.values())).task
    last = max(task.due, *(each.finish_at for each in shown.values()))
    air = (last - task.start) * 0.01
    span = (task.start - air, last + air)
    colours = {zone: ZONES[index % len(ZONES)] for index, zone in enumerate(results.setting.zones)}
    _draw_grid(grid, results, colours, span)
    most = _draw_runs(ran, shown, colours)
    _draw_time(grid, ran, span, task.due)
    heights_told = f"; bars as high as workers are many, at most {most}" if most > 1 else ""
    about = f"UTC, one start of the simulation, on {task.start:%Y-%m-%d}; dotted: its deadline{heights_told}"
    ran.set_xlabel(about, loc="left")
    _draw_savings(saved, results)
    return figure


def _draw_grid(ax: Any, results: Results, colours: dict[str, str], span: tuple[datetime, datetime]) -> None:
    """Intensity by zone as it came, dashed as it was forecast."""
    for name, zone in results.setting.zones.items():
        ax.plot(*_steps(zone.came(*span), span), color=colours[name], linewidth=1.7, label=name)
        if zone.forecast is not None:
            label = f"{name}, forecast"
            ax.plot(
                *_steps(zone.told(*span), span), color=colours[name], linewidth=1.1, linestyle=FORECAST, label=label
            )
    ax.set_ylabel("intensity, g/kWh")
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1.015, 1.0))


def _steps(stretches: tuple[Stretch, ...], span: tuple[datetime, datetime]) -> tuple[list[datetime], list[float]]:
    """A step line's points within the span; what is unknown breaks it."""
    times: list[datetime] = []
    values: list[float] = []
    for part in stretches:
        known = float("nan") if part.g_per_kwh is None else part.g_per_kwh
        if times and times[-1] < part.start:
            times.append(times[-1])
            values.append(float("nan"))
        times += [max(part.start, span[0]), min(part.end, span[1])]
        values += [known, known]
    return times, values


def _draw_runs(ax: Any, shown: dict[str, Outcome], colours: dict[str, str]) -> int:
    """A lane for each policy; a bar is as high as its workers are many. Returns the most workers."""
    most = max(segment.workers for each in shown.values() for segment in each.ran)
    for lane, outcome in enumerate(shown.values()):
        for segment in outcome.ran:
            height = 0.8 * segment.workers / most
            length: timedelta = segment.end - segment.start
            ax.barh(lane + 0.4 - height / 2, length, height, segment.start, color=colours[segment.zone], linewidth=0)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.set_ylim(len(shown) - 0.5, -0.5)
    return most


def _draw_time(grid: Any, ran: Any, span: tuple[datetime, datetime], due: datetime) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    for ax in (grid, ran):
        ax.set_xlim(*span)
        ax.axvline(due, color=INK, linewidth=0.8, linestyle=":")
    grid.set_xticklabels([])
    locator = AutoDateLocator(minticks=4, maxticks=9, tz=timezone.utc)
    ran.xaxis.set_major_locator(locator)
    ran.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=timezone.utc, show_offset=False))


def _draw_savings(ax: Any, results: Results) -> None:
    """What each policy saved over all starts."""
    saved = [row.saved_percent for row in results.rows]
    bars = ax.barh([row.policy for row in results.rows], saved, 0.66, color=ZONES[2], linewidth=0)
    ax.bar_label(bars, [f"{value:.1f} %" for value in saved], padding=4, color=INK, size=8.5)
    ax.invert_yaxis()
    ax.grid(False)
    ax.axvline(0, color=FAINT, linewidth=0.8)
    ax.set_xticks([])
    ax.spines[["bottom", "left"]].set_visible(False)
    ax.margins(x=0.12)
    ax.set_xlabel(f"saved over all {results.rows[0].runs} starts", loc="left")
