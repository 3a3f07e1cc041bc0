"""Controller passes over a whole fleet: seconds, memory, and how they grow with the number of jobs; `status` of it.
In: a seeded fleet of so many jobs on a tenth as many nodes of a simulated Ray. Out: seconds by kind of pass.
`measure` runs itself once for each size, in a process of its own: `python -m tests.bench.scale JOBS`.

A tenth of the jobs must run now, a twentieth is held by its user, some come between two passes, and the others wait
with standing plans, for they want more GPUs than there are. Every minute of the clock the meters hand in their rows.
"""

from __future__ import annotations

import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cluster.api import MeterRow, SegmentOrder
from jobs.spec import JobSpec
from orchestrator.controller import Controller
from orchestrator.planner import Planner
from orchestrator.signal.demo import DemoGrid
from orchestrator.site import Site, resolve_site
from orchestrator.store import Store, facts, forecasts, jobs
from orchestrator.store.schema import Job, LedgerRow, Segment
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.shown import end_most, status_s
from tests.bench.simulated import SimulatedRay, Speed

COUNTS = (1000, 3000, 10_000)
GOAL_S, GOAL_MB, GOAL_GROWTH = 2.0, 1024 * 1.048576, 1.2
ZONES = ("NORTH", "SOUTH", "EAST", "WEST", "ISLE")
KINDS, WIDTHS = 20, (1, 2, 4, 8)
T0 = datetime(2026, 3, 2, 17, 0, 10, tzinfo=timezone.utc)
"""An evening: most jobs wait for the night or the next noon."""
EVERY = timedelta(seconds=15)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MOST_PASSES, LEAST_PASSES, NEWEST = 60, 8, 50
STEADY = 12
"""Passes, three minutes of the clock."""
_AT_ONCE = 500
Seconds = tuple[float, float]
"""Of the clock, and of the processor."""


def measure(options: Options) -> Section:
    """Time passes at each size."""
    found = {}
    for count in COUNTS:
        print(f"  {count} jobs on {count // 10} nodes", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "tests.bench.scale", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[count] = json.loads(done.stdout)
    kinds = {
        "first": "first pass of a controller",
        "steady": "pass, median",
        "steady_worst": "pass, slowest (rows of a minute)",
        "forecast": "slowest pass after a new forecast",
        "anew": "slowest pass after new plans of all",
    }
    rows = []
    for kind, text in kinds.items():
        rows.append([f"{text}, s", *(f"{found[count][kind][0]:.2f}" for count in COUNTS)])
        rows.append(["  of the processor, s", *(f"{found[count][kind][1]:.2f}" for count in COUNTS)])
    told = {
        "running": "segments that run",
        "waiting": "jobs that wait",
        "rows": "ledger rows",
        "passes": "passes until all wait or run by their plans",
        "planner": "planning all together, beside the passes, s",
        "before_mb": "memory before, MB",
        "peak_mb": "memory at its peak, with the planner beside, MB",
    }
    rows += [[text, *(f"{found[count][kind]:,.0f}" for count in COUNTS)] for kind, text in told.items()]
    statuses = {"active": "status, of all", "json": "status --json, of all", "ended": "status, nine in ten have ended"}
    for kind, text in statuses.items():
        cells = [f"{found[count]['status'][kind][0]:.2f} ({found[count]['status'][kind][1]:,})" for count in COUNTS]
        rows.append([f"{text}, s (jobs shown)", *cells])
    title = "Controller passes over a fleet on a simulated Ray"
    table = Table(title, ("", *(f"{count:,} jobs, {count // 10:,} nodes" for count in COUNTS)), rows)
    most, least = found[COUNTS[-1]], found[COUNTS[0]]
    figures = [
        Figure(f"{text}, {COUNTS[-1]:,} jobs", most[kind][0], "s", at_most=GOAL_S) for kind, text in kinds.items()
    ]
    figures.append(Figure("peak memory, with the planner", most["peak_mb"], "MB", at_most=GOAL_MB))
    figures += [
        Figure(f"{text}, {COUNTS[-1]:,} jobs", most["status"][kind][0], "s", at_most=GOAL_S)
        for kind, text in statuses.items()
    ]
    for kind in ("steady", "steady_worst"):
        power = math.log(most[kind][1] / least[kind][1]) / math.log(COUNTS[-1] / COUNTS[0])
        figures.append(
            Figure(f"growth of: {kinds[kind]}", power, "", at_most=GOAL_GROWTH, note="exponent; 1 is linear")
        )
    return Section("scale", figures, [table])


class Fleet:
    """A store with a seeded fleet, its controller, and a clock that is set by hand."""

    def __init__(self, folder: Path, count: int) -> None:
        self.now, self.folder = T0, folder
        self._random = random.Random(count)
        nodes = {f"node-{n}": ZONES[n % len(ZONES)] for n in range(max(len(ZONES), count // 10))}
        gpus = {zone: 8 * sum(other == zone for other in nodes.values()) for zone in ZONES}
        zones = {zone: {"provider": "demo", "gpus": gpus[zone]} for zone in ZONES}
        self.site: Site = resolve_site({"zones": zones, "slot": "15m"}, folder, "bench")
        self.store = Store(self.site.store_url)
        self._speeds = [Speed(0.5 + self._random.random(), 250 + 300 * self._random.random()) for _ in range(KINDS)]
        self._ray = SimulatedRay(lambda: self.now, lambda order: self._speeds[_kind(order)], nodes)
        self._submitted = 0
        self._arrive = max(1, count // 2000)
        self._write_history()
        self._submit(count // 10, is_tight=True)
        self._submit(count - count // 10)
        self._hold(count // 20)
        self.bring_forecast(1.0)
        self.planner = Planner(self.store, self.site, clock=lambda: self.now)
        self.restart()

    def restart(self) -> None:
        """Another controller process begins: it remembers nothing."""
        holder = f"elsewhere:{self._random.randrange(10**6)}:0"
        if self._submitted and hasattr(self, "_controller"):
            self._controller.release()
        self._controller = Controller(self.store, self.site, lambda: self._ray, clock=lambda: self.now, holder=holder)

    def one_s(self) -> Seconds:
        """The next pass, which comes EVERY after the last; a few jobs have come meanwhile."""
        self.now += EVERY
        self._submit(self._arrive)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        self._controller.run_pass()
        return time.perf_counter() - began_s, time.process_time() - cpu_s

    def bring_forecast(self, scale: float) -> None:
        """Keep a forecast of the demo grid, times `scale`, for every zone."""
        with self.store.write() as session:
            for zone in self.site.zones:
                curve = DemoGrid().forecast(zone, self.now)
                points = tuple(p._replace(g_per_kwh=(p.g_per_kwh or 0.0) * scale) for p in curve.points)
                forecast = replace(curve, zone=zone, points=points)
                forecasts.keep(session, zone, "plan", self.now, forecast, None)
                facts.add_current(session, forecast, self.now)

    def until_all_stand(self) -> int:
        """Passes until nobody but the newest is left who was not considered."""
        passes = 0
        while passes < LEAST_PASSES or (passes < MOST_PASSES and self.counted()["queued"] > NEWEST * self._arrive):
            self.one_s()
            passes += 1
        return passes

    def counted(self) -> dict[str, int]:
        """Jobs by state, and ledger rows."""
        with self.store.read() as session:
            states = {state: n for state, n in session.execute(select(Job.state, func.count()).group_by(Job.state))}
            rows = session.scalar(select(func.count()).select_from(LedgerRow)) or 0
        return {**{state: states.get(state, 0) for state in ("queued", "running", "waiting")}, "rows": rows}

    def _submit(self, count: int, is_tight: bool = False) -> None:
        for first in range(0, count, _AT_ONCE):
            with self.store.write() as session:
                for _ in range(min(_AT_ONCE, count - first)):
                    self._submitted += 1
                    jobs.submit(session, self._spec(f"job-{self._submitted}", is_tight), self.now)

    def _spec(self, name: str, is_tight: bool) -> JobSpec:
        kind, workers = self._random.randrange(KINDS), self._random.choice(WIDTHS)
        hours = self._random.uniform(4, 12) if is_tight else self._random.uniform(1, 7)
        finish_h = hours * 1.05 if is_tight else self._random.uniform(30, 60)
        return _spec(name, kind, workers, int(hours * 3600 * self._speeds[kind].of(workers)), finish_h)

    def _hold(self, count: int) -> None:
        with self.store.write() as session:
            for job in jobs.active_jobs(session)[-count:]:
                jobs.wish(session, job, "hold", self.now)

    def _write_history(self) -> None:
        """Jobs of every kind and width have run for an hour, so that all others are planned by what was measured."""
        with self.store.write() as session:
            for kind, speed in enumerate(self._speeds):
                for workers in WIDTHS:
                    spec = _spec(f"earlier-{kind}-{workers}", kind, workers, int(3600 * speed.of(workers)), 24)
                    job = jobs.submit(session, spec, T0 - 3 * HOUR)
                    job.state, job.ended_at = "done", T0 - HOUR
                    session.add(_measured(job, workers))
                    session.flush()
                    facts.add_rows(session, list(_rows(job, workers, speed.watts)))


def _kind(order: SegmentOrder) -> int:
    return int(order.spec.user or 0)


def _spec(name: str, kind: int, workers: int, steps: int, finish_h: float) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": name,
            "job": "train",
            "user": str(kind),
            "model": {"config": {"model_type": "llama", "hidden_size": 256 + 64 * kind}},
            "data": {"files": ["corpus.txt"], "sequence_length": 256},
            "training": {"steps": steps, "batch_size": 64},
            "deepspeed": {"zero_optimization": {"stage": 2}},
            "workers": {"count": workers, "gpus": 1},
            "carbon": {"finish_by": f"{finish_h * 60:.0f}m"},
        }
    )


def _measured(job: Job, workers: int) -> Segment:
    begun = T0 - 2 * HOUR
    assert job.ended_at is not None
    return Segment(
        id=f"{job.id}-1", job_id=job.id, n=1, zone=ZONES[0], workers=workers, gpus=workers, reason="start", known=True,
        run_until=job.ended_at, ends_as="expired", ordered_at=begun - MINUTE, first_step_at=begun, start_step=0,
        step=job.spec["training"]["steps"], trained_steps=job.spec["training"]["steps"], trained_s=3600.0,
        ended_at=job.ended_at, ended="done", parts_s={"step_end": 1.0, "checkpoint": 2.0},
    )  # fmt: skip


def _rows(job: Job, workers: int, watts: float) -> Iterator[MeterRow]:
    for rank in range(workers):
        for minute in range(60):
            start = T0 - 2 * HOUR + minute * MINUTE
            device = f"GPU-{job.id}-{rank}"
            yield MeterRow(
                f"boot-{job.id}", device, minute, "n", start, start + MINUTE, watts * 60, "nvml-counter", "train",
                job.id, f"{job.id}-1", rank, device,
            )  # fmt: skip


def _worst(passes: list[Seconds]) -> Seconds:
    return max(wall_s for wall_s, _ in passes), max(cpu_s for _, cpu_s in passes)


def _several(one: Callable[[], Seconds], count: int) -> list[Seconds]:
    return [one() for _ in range(count)]


def _run(count: int) -> dict[str, Any]:
    before_mb = _peak_mb()
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        fleet = Fleet(Path(folder), count)
        fleet.one_s()
        began_s = time.perf_counter()
        fleet.planner.once()
        planner_s = time.perf_counter() - began_s
        until = fleet.until_all_stand()
        fleet.restart()
        first = fleet.one_s()
        fleet.until_all_stand()
        fleet.planner.once()
        _several(fleet.one_s, LEAST_PASSES)
        steady = _several(fleet.one_s, STEADY)
        fleet.bring_forecast(1.2)
        forecast = _several(fleet.one_s, 4)
        fleet.planner.once()
        anew = _several(fleet.one_s, 4)
        found = fleet.counted()
        peak_mb = _peak_mb()
        status = {"active": status_s(fleet.folder, fleet.site), "json": status_s(fleet.folder, fleet.site, "--json")}
        end_most(fleet.store, fleet.now)
        status["ended"] = status_s(fleet.folder, fleet.site)
        return {
            "first": first,
            "steady": tuple(statistics.median(each) for each in zip(*steady, strict=True)),
            "steady_worst": _worst(steady),
            "forecast": _worst(forecast),
            "anew": _worst(anew),
            "passes": until,
            "planner": planner_s,
            **found,
            "status": status,
            "before_mb": before_mb,
            "peak_mb": peak_mb,
        }


def _peak_mb() -> float:
    """Greatest resident memory of the process until now, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]))))
