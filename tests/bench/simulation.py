"""The policies by simulated time on recorded grids: elastic jobs, pause costs, and real day-ahead forecasts.
In: the folder of the recorded grids and profiles. Out: gaps to a bound, the policies side by side, savings kept.
The bounds are `tests.bench.bound`'s, which know nothing of the planner.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from orchestrator.plan import OperatingPoint, PauseCost
from orchestrator.simulate import Recorded, Setting, Task, follow, points_of, read_profile, read_recorded, tasks_each
from tests.bench.bound import hull_g, whole_slots_g
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.oracle import ONE_KW

H = 3600.0
POLICIES = ("now", "threshold", "window", "slots", "greedy", "optimal")
MODELS = ("resnet18", "resnet50", "vgg16")
LENGTH_H, DEADLINE_H, EVERY_H = 24, 36, 149
PAUSES_S = (60.0, 300.0, 1800.0)
SAMPLED, SAMPLED_PAUSES, SAMPLED_EXACT, SAMPLED_DAYS = 3, 12, 7, 4
"""Of each so many starts (or of those simulated, for the exact plan) one is taken, unless the whole is asked for."""
ROUNDING_PERCENT = 1e-5
FORECAST_LENGTHS_H = (4, 8, 12)

_SOLVES = find_spec("scipy") is not None

Sums = dict[str, float]


def measure(options: Options) -> Section:
    """Simulate all three."""
    if not (options.data / "hourly-2022").is_dir():
        return Section("simulation", remarks=[f"not measured: no recorded grids in {options.data}; give --data FOLDER"])
    section = Section("simulation")
    zones = {path.stem: read_recorded(path.stem, path) for path in _traces(options.data / "hourly-2022")}
    models = {
        model: points_of(read_profile(options.data / "scale-profiles.yaml", model)[1], (1, 8)) for model in MODELS
    }
    _elastic(section, zones, models, options.whole)
    _pauses(section, zones, models, options.whole)
    if (options.data / "day-ahead-2021").is_dir():
        _forecasts(section, options.data / "day-ahead-2021", 1 if options.whole else SAMPLED_DAYS)
    else:
        section.remarks.append(f"no day-ahead forecasts in {options.data}: planning by forecasts is not measured")
    return section


def _traces(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.csv") if path.stem != "oracle")


def _elastic(
    section: Section, zones: Mapping[str, Recorded], models: Mapping[str, tuple[OperatingPoint, ...]], whole: bool
) -> None:
    """Every policy's gap to the bound, by model and zone."""
    lines: list[list[str]] = []
    beyond, exact = [], []
    began_s, plans = time.monotonic(), 0
    for model, points in models.items():
        print(f"  elastic, {model}", file=sys.stderr, flush=True)
        gaps = []
        for zone, recorded in zones.items():
            setting, tasks = _starts(recorded, points, PauseCost(), 1 if whole else SAMPLED)
            sums, plans = _sums(setting, tasks), plans + len(tasks) * len(POLICIES)
            bound_g = sum(_bound_g(recorded, task) for task in tasks)
            gaps.append([100 * (sums[policy] / bound_g - 1) for policy in POLICIES])
            beyond.append(_beyond_percent(sums))
            lines.append([model, zone, str(len(tasks)), f"{bound_g / 1000:.3f}", *(f"{gap:.2f}" for gap in gaps[-1])])
            if _SOLVES:
                exact += [_exact_percent(setting, task) for task in tasks[::SAMPLED_EXACT]]
        means = dict(zip(POLICIES, np.mean(gaps, axis=0).tolist(), strict=True))
        lines.append([model, "mean", "", "", *(f"{gap:.2f}" for gap in means.values())])
        note = {"resnet18": "about 5 % expected", "resnet50": "about 10 % expected"}.get(model, "")
        section.figures.append(Figure(f"greedy over the bound, {model}", means["greedy"], "%", note=note))
        section.figures.append(Figure(f"optimal over the bound, {model}", means["optimal"], "%"))
    note = f"{plans} plans, {1000 * (time.monotonic() - began_s) / plans:.1f} ms each with their bounds"
    if exact:
        name, told = "most that optimal emits over the best whole slots", f"{len(exact)} starts, one slot in part"
        section.figures.append(Figure(name, max(exact), "%", at_most=0.1, note=told))
    else:
        section.remarks.append("scipy is not installed: the exact plans over whole slots are not made")
    section.figures.append(_at_least_as_good("elastic", beyond, note))
    columns = ("profile", "zone", "starts", "bound, kg", *POLICIES)
    title = "Elastic 1 to 8 workers, 24 h of one worker's work due in 36 h, no start costs: % over the hull bound"
    section.tables.append(Table(title, columns, lines))


def _pauses(
    section: Section, zones: Mapping[str, Recorded], models: Mapping[str, tuple[OperatingPoint, ...]], whole: bool
) -> None:
    """Where starts cost time, every policy's emissions beside optimal's."""
    lines: list[list[str]] = []
    for pause_s in PAUSES_S:
        print(f"  pauses of {pause_s:.0f} s", file=sys.stderr, flush=True)
        beyond = []
        for model, points in {"one worker": points_of_one(models), **models}.items():
            over = []
            for recorded in zones.values():
                setting, tasks = _starts(recorded, points, PauseCost(pause_s), 1 if whole else SAMPLED_PAUSES)
                sums = _sums(setting, tasks)
                beyond.append(_beyond_percent(sums))
                over.append([100 * (sums[policy] / sums["optimal"] - 1) for policy in POLICIES])
            means = (f"{mean:.2f}" for mean in np.mean(over, axis=0))
            lines.append([f"{pause_s:.0f} s", model, *means, f"{np.max([-row for row in _others(over)]):+.3f}"])
        section.figures.append(_at_least_as_good(f"starts of {pause_s:.0f} s", beyond))
    columns = ("a start takes", "profile", *POLICIES, "optimal beyond the best")
    title = "Mean over the zones: % over optimal; the last column is of the worst zone"
    section.tables.append(Table(title, columns, lines))


def points_of_one(models: Mapping[str, tuple[OperatingPoint, ...]]) -> tuple[OperatingPoint, ...]:
    """A job of one fixed width."""
    return next(iter(models.values()))[:1]


def _others(over: Sequence[Sequence[float]]) -> list[float]:
    """How far the best of the other policies is over optimal, by zone."""
    return [min(row[:-1]) for row in over]


def _forecasts(section: Section, folder: Path, every: int) -> None:
    """What of the savings of perfect foresight is kept by the provider's forecast, and by yesterday's curve."""
    lines: list[list[str]] = []
    for path in _traces(folder):
        print(f"  day-ahead forecasts, {path.stem}", file=sys.stderr, flush=True)
        told = read_recorded(path.stem, path, "actual_g_per_kwh", "day_ahead_g_per_kwh")
        day = timedelta(days=1)
        late = tuple(replace(part, start=part.start + day, end=part.end + day) for part in told.actual)
        ways = {"foresight": replace(told, forecast=None), "provider": told, "yesterday": replace(told, forecast=late)}
        for length_h in FORECAST_LENGTHS_H:
            setting = Setting({path.stem: ways["foresight"]})
            tasks = tasks_each(setting, length_h * H, 24 * H, 24 * H, (ONE_KW,))[1::every]
            now_g = sum(follow(setting, task, "now").emissions_g for task in tasks)
            sums = {
                name: sum(follow(Setting({path.stem: each}), task, "optimal").emissions_g for task in tasks)
                for name, each in ways.items()
            }
            possible_g = now_g - sums["foresight"]
            kept = [f"{100 * (now_g - sums[name]) / possible_g:.1f} %" for name in ("provider", "yesterday")]
            lines.append([path.stem, f"{length_h} h", str(len(tasks)), f"{100 * possible_g / now_g:.1f} %", *kept])
    columns = ("grid", "length in 24 h", "days", "saved with foresight", "kept by the provider's", "by yesterday's")
    title = "Planned anew each hour by a day-ahead forecast or by yesterday's curve, charged by what came"
    section.tables.append(Table(title, columns, lines))


def _starts(
    recorded: Recorded, points: tuple[OperatingPoint, ...], pause: PauseCost, every: int
) -> tuple[Setting, list[Task]]:
    setting = Setting({recorded.zone: recorded}, H, pause)
    return setting, tasks_each(setting, LENGTH_H * H, DEADLINE_H * H, EVERY_H * H, points)[::every]


def _sums(setting: Setting, tasks: Sequence[Task]) -> Sums:
    return {policy: sum(follow(setting, task, policy).emissions_g for task in tasks) for policy in POLICIES}


def _beyond_percent(sums: Sums) -> float:
    """How much more `optimal` emits than the best of the others; below 0 where it emits less."""
    return 100 * (sums["optimal"] / min(sums[policy] for policy in POLICIES if policy != "optimal") - 1)


def _at_least_as_good(name: str, beyond: Sequence[float], note: str = "") -> Figure:
    label = f"most that optimal emits over the best other policy, {name}"
    return Figure(label, max(beyond), "%", at_most=ROUNDING_PERCENT, note=note or f"{len(beyond)} sums")


def _prices(recorded: Recorded, task: Task) -> np.ndarray:
    return np.array([part.g_per_kwh for part in recorded.came(task.start, task.due)], dtype=np.float64)


def _bound_g(recorded: Recorded, task: Task) -> float:
    return hull_g(_prices(recorded, task), H, task.points, task.work_steps)


def _exact_percent(setting: Setting, task: Task) -> float:
    """How much more `optimal` emits than the best whole slots with one used in part."""
    prices = _prices(next(iter(setting.zones.values())), task)
    best_g = whole_slots_g(prices, H, task.points, task.work_steps)
    return 100 * (follow(setting, task, "optimal").emissions_g / best_g - 1)
