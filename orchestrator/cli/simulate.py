"""The simulate command: what each policy would have emitted on recorded grids, before anything is adopted.
In: traces, a profile of the model, lengths and costs as text. Out: a table, JSON, a page.
The work is `orchestrator.simulate`; here its input is read, and refused with the option's name where it is wrong.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.spec import InputError, seconds
from jobs.spec.units import worker_range
from orchestrator.cli.desk import print_json
from orchestrator.plan import POLICIES, PauseCost
from orchestrator.simulate import (
    Recorded,
    Results,
    Setting,
    Task,
    points_of,
    read_jobs,
    read_recorded,
    simulate,
    tasks_each,
)
from orchestrator.simulate.profile import ONE_KW, Scale, read_profile
from orchestrator.simulate.results import runs_of


@dataclass(frozen=True)
class Asked:
    """The options, as they were written."""

    trace: Sequence[str]
    actual_column: str
    forecast_column: str | None
    profile: Path | None
    model: str | None
    workers: str | None
    length: str | None
    deadline: str | None
    every: str | None
    policies: str
    pause_cost: str
    move_cost: str
    slot: str
    jobs: Path | None = None
    capacity: Sequence[str] = ()


_COLUMNS_OF_JOBS = {
    "model": "profile",
    "workers": "workers",
    "length": "length",
    "deadline": "deadline",
    "every": "submit_utc",
}
"""What each job of a file says for itself: the options that are not for it, and where it says so."""
_EACH_START = {"length": "24h", "deadline": "36h", "every": "149h"}


def run(asked: Asked, as_json: bool, html: Path | None) -> None:
    """Simulate, and show the results."""
    if html is not None and not html.absolute().parent.is_dir():  # said before the work, not after it
        raise InputError(f"--html: {html} cannot be written, there is no folder {html.absolute().parent}; make it")
    policies = _policies(asked.policies)
    pause = PauseCost(_duration("--pause-cost", asked.pause_cost, 0), _duration("--move-cost", asked.move_cost, 0))
    zones = _zones(asked)
    setting = Setting(zones, _duration("--slot", asked.slot), pause, _gpus(asked, zones))
    model, tasks = _tasks(asked, setting)
    with _progress(runs_of(setting, tasks, policies)) as after_each:
        results = simulate(setting, tasks, policies, after_each)
    if html is not None:
        _write(html, results, asked, model)
    if as_json:
        print_json(results.to_json())
    else:
        _table(results, asked, model)
        for note in results.notes:
            print(f"lowtide: {note}", file=sys.stderr)


def _policies(text: str) -> list[str]:
    policies = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for policy in policies:
        if policy not in POLICIES:
            near = difflib.get_close_matches(policy, POLICIES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"--policies: {policy!r} is no policy; {hint}there are {', '.join(POLICIES)}")
    if not policies:
        raise InputError(f"--policies: names none; write e.g. now,optimal (there are {', '.join(POLICIES)})")
    return policies


def _duration(option: str, text: str, least: int = 1) -> float:
    """Seconds; zero, with or without a unit, where `least` is 0."""
    if least == 0 and re.fullmatch(r"\s*0+(\.0+)?\s*(ms|s|m|h|d|w)?\s*", text):
        return 0.0
    try:
        return seconds(text)
    except ValueError as fault:
        raise InputError(f"{option}: {fault}") from None


def _zones(asked: Asked) -> dict[str, Recorded]:
    if not asked.trace:
        raise InputError("--trace: is missing; give a recorded grid, e.g. --trace DE=de.csv (start_utc,g_per_kwh)")
    zones: dict[str, Recorded] = {}
    for text in asked.trace:
        zone, separator, file = text.partition("=")
        if not (zone and separator and file):
            raise InputError(f"--trace: {text!r} is not ZONE=FILE; write e.g. DE=de.csv")
        if zone in zones:
            raise InputError(f"--trace: {zone} is given twice; name each zone once")
        zones[zone] = read_recorded(zone, Path(file), asked.actual_column, asked.forecast_column)
    return zones


def _gpus(asked: Asked, zones: Mapping[str, Recorded]) -> dict[str, int] | None:
    """GPUs that a fleet shares, by zone; None where each start is alone."""
    if asked.jobs is None:
        if asked.capacity:
            raise InputError("--capacity: needs --jobs FILE.csv, whose jobs share it")
        return None
    gpus: dict[str, int] = {}
    for text in asked.capacity:
        zone, _, count = text.partition("=")
        if not (zone and count.isdigit()):
            raise InputError(f"--capacity: {text!r} is not ZONE=GPUS; write e.g. DE=16")
        if zone not in zones:
            raise InputError(f"--capacity: {zone!r} is no zone of --trace; there are {', '.join(zones)}")
        if zone in gpus:
            raise InputError(f"--capacity: {zone} is given twice; name each zone once")
        gpus[zone] = int(count)
    return gpus


def _tasks(asked: Asked, setting: Setting) -> tuple[str, list[Task]]:
    """What runs, in words, and its starts."""
    if asked.jobs is not None:
        for option, column in _COLUMNS_OF_JOBS.items():
            if getattr(asked, option) is not None:
                raise InputError(f"--{option}: is not for --jobs; give it in the column {column} of {asked.jobs}")
        tasks = read_jobs(asked.jobs, setting, asked.profile)
        return f"{len(tasks)} jobs of {asked.jobs}", tasks
    length_s, deadline_s = (_duration(f"--{name}", _given(asked, name)) for name in ("length", "deadline"))
    name, scales = _scales(asked)
    points = points_of(scales, _workers(asked.workers))
    tasks = tasks_each(setting, length_s, deadline_s, _duration("--every", _given(asked, "every")), points)
    tasks = [task for task in tasks if setting.is_known(task)]
    if not tasks:
        span_h = max(0.0, (setting.end - setting.start).total_seconds() / 3600)
        raise InputError(
            f"--deadline: no start has its deadline of {_given(asked, 'deadline')} within the traces, which share "
            f"{span_h:.1f} h of known intensity; give a shorter one or longer traces"
        )
    return name, tasks


def _given(asked: Asked, name: str) -> str:
    """An option of starts that are all alike, or what it is by default."""
    return getattr(asked, name) or _EACH_START[name]


def _scales(asked: Asked) -> tuple[str, dict[int, Scale]]:
    if asked.profile is not None:
        return read_profile(asked.profile, asked.model)
    if asked.model is not None:
        raise InputError("--model: needs --profile FILE, which holds its throughput and watts by worker count")
    return "1 kW", ONE_KW


def _workers(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        return worker_range(int(text) if text.strip().isdigit() else text)
    except ValueError as fault:
        raise InputError(f"--workers: {fault}") from None


@contextmanager
def _progress(runs: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=runs)
        yield lambda: bar.advance(task)


def _table(results: Results, asked: Asked, model: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from orchestrator.report.words import energy, grams

    setting = results.setting
    each = "" if asked.jobs else f", {_given(asked, 'length')} of one worker's work due in {_given(asked, 'deadline')}"
    zones = ", ".join(f"{zone} ({count} GPUs)" for zone, count in _shared(setting).items())
    title = f"{model}{each}, in {zones or ', '.join(setting.zones)}, {setting.start:%Y-%m-%d} to {setting.end:%Y-%m-%d}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(("policy", "runs", "emissions", "saved", "energy", "mean wait", "missed", "switches")):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in results.rows:
        table.add_row(
            row.policy,
            str(row.runs),
            grams(row.emissions_g),
            f"{row.saved_percent:.2f} %",
            energy(row.energy_j),
            f"{row.mean_wait_h:.1f} h",
            str(row.missed_deadlines),
            str(row.switches),
        )
    console = Console(highlight=False)
    console.print(title)
    console.print(table)
    if results.fleet is not None and results.fleet.bound_g is not None:
        gap = results.fleet.gap_percent
        said = "optimal misses one" if gap is None else f"optimal is within {gap:.2f} % of it"
        console.print(
            f"Proven: no plans that meet every deadline emit less than {grams(results.fleet.bound_g)}; {said}"
        )


def _shared(setting: Setting) -> dict[str, str]:
    """GPUs by zone, in words; none where each start is alone."""
    if setting.gpus is None:
        return {}
    return {zone: str(setting.gpus.get(zone, "unlimited")) for zone in setting.zones}


def _write(path: Path, results: Results, asked: Asked, model: str) -> None:
    from orchestrator.simulate.page import page

    planned = "what came" if asked.forecast_column is None else f"the column {asked.forecast_column}, anew each slot"
    points = results.baseline[0].task.points
    about = {
        "model": model,
        "workers": ", ".join(str(point.workers) for point in points),
        "length": f"{_given(asked, 'length')} at one worker",
        "deadline": _given(asked, "deadline"),
        "a start every": _given(asked, "every"),
    }
    if asked.jobs is not None:
        shared = ", ".join(f"{zone}: {count}" for zone, count in _shared(results.setting).items())
        about = {"jobs": str(asked.jobs), "GPUs": shared}
    said = {
        "traces": ", ".join(asked.trace),
        "planned by": planned,
        **about,
        "cost of a pause": asked.pause_cost,
        "and of a move": asked.move_cost,
        "slot": asked.slot,
    }
    try:
        path.write_text(page(results, said), encoding="utf-8")
    except OSError as fault:
        raise InputError(f"--html: {path} cannot be written ({fault.strerror or fault}); check the path") from None
