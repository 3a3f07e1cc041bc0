"""Fleets of jobs that share the GPUs of five zones, planned whole: gap to the proven bound, time, memory.
In: a seeded generator of jobs and of grids; `--data` has recorded ones. Out: figures, and the curve of time by jobs.
`tests.bench.__main__` prints it.

Lengths are log-normal (median 8 h) clipped to 2 to 96 h, on 1, 2, 4 or 8 GPUs; jobs arrive evenly over a week and are
due 1.5 to 4 times their length later, the last ones after the week. The week is 672 slots of 15 minutes; the grid goes
on to the last deadline. GPUs come in nodes of eight, so many that a week's arrivals ask for 60 % or 90 % of a week.
"""

from __future__ import annotations

import csv
import math
import resource
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from orchestrator.fleet import Fleet, FleetJob, FleetPlan, FleetZone, plan_fleet, replan
from orchestrator.plan import OperatingPoint, PauseCost, Stretch
from tests.bench.figure import Figure, Options, Section, Table

NOW = datetime(2022, 3, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WEEK_S = 7 * 86400.0
WEEKS = 4
GPU_W = 400.0
NODE = 8
SHARES = (0.10, 0.15, 0.20, 0.25, 0.30)
"""Of all GPUs, cleanest zone first."""
PUES = (1.10, 1.20, 1.15, 1.30, 1.40)
GENERATED = {
    "hydro": (60.0, 10.0, 0.05),
    "nuclear": (90.0, 20.0, 0.20),
    "wind": (260.0, 40.0, 0.50),
    "solar": (280.0, 120.0, 0.25),
    "coal": (560.0, 60.0, 0.12),
}
"""Mean and daily swing in g/kWh, and how much weather there is."""
CURVE = (125, 250, 500, 1_000, 2_000, 4_000, 10_000)
GOALS_S = {1_000: 10.0, 10_000: 120.0}
LOADS = (0.6, 0.9)
COLUMNS = ("jobs", "load", "GPUs", "slots", "grams, kg", "bound, kg", "gap", "missed", "seconds", "ms a job")


def measure(options: Options) -> Section:
    """Plan fleets of rising size at both loads, then one job of them anew; then on recorded grids."""
    plan_fleet(fleet(20, 0.6, generated(1)))  # compiles, or reads what was compiled
    section = Section("fleet")
    made = generated(1)
    rows = [_planned(section, fleet(jobs, 0.6, made), 0.6, "") for jobs in GOALS_S]
    rows += [_planned(section, fleet(jobs, 0.9, made), 0.9, "") for jobs in CURVE]
    section.tables.append(Table("Fleets in five zones, generated intensities", COLUMNS, rows))
    recorded = _recorded(options.data)
    if recorded:
        rows = [_planned(section, fleet(1_000, load, recorded), load, ", recorded") for load in LOADS]
        section.tables.append(Table(f"Likewise, recorded intensities of {', '.join(recorded)}", COLUMNS, rows))
    else:
        section.remarks.append(f"no recorded grids in {options.data}; give --data FOLDER")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    section.figures.append(Figure("memory at its peak", peak_gib, "GiB", at_most=4.0))
    return section


def _planned(section: Section, asked: Fleet, load: float, source: str) -> list[str]:
    """A line of the table; figures where there are goals."""
    jobs = len(asked.jobs)
    print(f"  {jobs} jobs at {load:.0%}{source}", file=sys.stderr, flush=True)
    began_s = time.monotonic()
    planned = plan_fleet(asked)
    took_s = time.monotonic() - began_s
    if jobs in GOALS_S:
        name = f"{jobs:,} jobs at {load:.0%}{source}"
        section.figures.append(Figure(f"gap, {name}", planned.gap_percent, "%", at_most=1.0))
        section.figures.append(Figure(f"time, {name}", took_s, "s", at_most=GOALS_S[jobs]))
        section.figures.append(_again(asked, planned, name))
    return _row(asked, planned, load, took_s)


def fleet(jobs: int, load: float, curves: dict[str, tuple[Stretch, ...]], seed: int = 1) -> Fleet:
    """The fleet of a seed: `jobs` jobs that ask for a share `load` of a week of all GPUs."""
    random = np.random.default_rng(seed)
    lengths_h = np.clip(random.lognormal(math.log(8.0), 1.0, jobs), 2.0, 96.0)
    gpus = random.choice([1, 2, 4, 8], jobs)
    arrivals_s = random.uniform(0.0, WEEK_S, jobs)
    slack = random.uniform(1.5, 4.0, jobs)
    priority = random.choice([0, 1, 2], jobs, p=[0.6, 0.3, 0.1])
    counts = _nodes(float((lengths_h * gpus).sum()) * 3600 / WEEK_S / load)
    zones = {
        name: FleetZone(curve, pue, count * NODE)
        for (name, curve), pue, count in zip(curves.items(), PUES, counts, strict=True)
    }
    made = []
    for i in range(jobs):
        begin = NOW + timedelta(seconds=float(arrivals_s[i]))
        end = begin + timedelta(hours=float(lengths_h[i] * slack[i]))
        made.append(
            FleetJob(
                job_id=f"job-{i:05d}",
                deadline=end,
                work_steps=float(lengths_h[i] * 3600),
                points=dict.fromkeys(zones, (OperatingPoint(1, 1.0, GPU_W * float(gpus[i])),)),
                gpus_per_worker=int(gpus[i]),
                priority=int(priority[i]),
                waiting_since=begin,
                pause=PauseCost(resume_s=120.0),
                not_before=begin,
                started=True,
            )
        )
    return Fleet(NOW, zones, tuple(made))


def generated(seed: int) -> dict[str, tuple[Stretch, ...]]:
    """Four weeks of hours: a dip at noon and a rise in the evening, times weather that lasts for days."""
    random = np.random.default_rng(seed)
    hours = np.arange(WEEKS * 7 * 24)
    made = {}
    for name, (mean, swing, weather) in GENERATED.items():
        noon = np.exp(-(((hours % 24 - 13) / 3.5) ** 2))
        evening = np.exp(-(((hours % 24 - 19) / 2.5) ** 2))
        shocks = random.normal(0.0, math.sqrt(1 - 0.97**2), len(hours))
        wind = np.zeros(len(hours))
        for hour in hours[1:]:
            wind[hour] = 0.97 * wind[hour - 1] + shocks[hour]
        noise = random.normal(0.0, 0.02 * mean, len(hours))
        values = mean * np.exp(weather * wind) + swing * (0.5 * evening - noon) + noise
        made[name] = _stretches(np.maximum(5.0, values).tolist())
    return made


def _recorded(data: Path) -> dict[str, tuple[Stretch, ...]]:
    """Five recorded grids, cleanest first, four weeks from 1 March on; none where they are not there."""
    folder = data / "hourly-2022"
    found: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*.csv")) if folder.is_dir() else []:
        if file.stem != "oracle":
            with file.open(encoding="utf-8", newline="") as lines:
                hours = [float(row["g_per_kwh"]) for row in csv.DictReader(lines)]
            found[file.stem] = hours[59 * 24 : (59 + WEEKS * 7) * 24]
    if len(found) < len(SHARES):
        return {}
    ranked = sorted(found, key=lambda zone: sum(found[zone]))
    chosen = [ranked[round(i * (len(ranked) - 1) / 4)] for i in range(5)]
    return {zone: _stretches(found[zone]) for zone in chosen}


def _stretches(values: list[float]) -> tuple[Stretch, ...]:
    return tuple(Stretch(NOW + i * HOUR, NOW + (i + 1) * HOUR, round(value, 1)) for i, value in enumerate(values))


def _nodes(gpus: float) -> list[int]:
    """Nodes by zone: the shares of all, the rest to those that lose most by rounding; every zone has one."""
    total = max(len(SHARES), round(gpus / NODE))
    exact = [share * total for share in SHARES]
    counts = [max(1, int(part)) for part in exact]
    order = sorted(range(len(exact)), key=lambda i: exact[i] - counts[i], reverse=True)
    for i in order[: max(0, total - sum(counts))]:
        counts[i] += 1
    return counts


def _again(asked: Fleet, planned: FleetPlan, name: str) -> Figure:
    """The slowest of ten times that one job's work turned out a tenth less, or more."""
    slowest_s, gaps = 0.0, []
    for i in range(10):
        index = i * len(asked.jobs) // 10
        job = replace(asked.jobs[index], work_steps=asked.jobs[index].work_steps * (0.9 if i % 2 else 1.02))
        jobs = (*asked.jobs[:index], job, *asked.jobs[index + 1 :])
        began_s = time.monotonic()
        gaps.append(replan(planned, replace(asked, jobs=jobs), [job.job_id]).gap_percent)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    return Figure(f"one job anew, {name}", slowest_s, "s", at_most=1.0, note=f"slowest of 10, gap {max(gaps):.2f} %")


def _row(asked: Fleet, planned: FleetPlan, load: float, took_s: float) -> list[str]:
    gpus = sum(zone.gpus or 0 for zone in asked.zones.values())
    return [
        f"{len(asked.jobs):,}",
        f"{load:.0%}",
        f"{gpus:,}",
        f"{planned.state.cells.cells:,}",
        f"{planned.emissions_g / 1000:,.1f}",
        f"{planned.bound_g / 1000:,.1f}",
        f"{planned.gap_percent:.2f} %",
        str(len(planned.missed)),
        f"{took_s:.2f}",
        f"{1000 * took_s / len(asked.jobs):.2f}",
    ]
