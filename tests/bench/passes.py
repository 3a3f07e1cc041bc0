"""One controller pass over many waiting jobs: seconds and memory.
In: a store with so many jobs, three zones of the demo grid, a stand-in cluster. Out: seconds by kind of pass.
`measure` runs itself once for each number of jobs, in a process of its own: `python -m tests.bench.passes JOBS`.

A pass plans for a bounded time, so a thousand jobs get their first plans over several passes; all of them are timed.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cluster.api import Node
from jobs.spec import JobSpec
from orchestrator.controller import Controller
from orchestrator.signal.demo import DemoGrid
from orchestrator.site import Site, resolve_site
from orchestrator.store import Store, forecasts, jobs
from orchestrator.store.schema import Job
from tests.bench.figure import Figure, Options, Section, Table
from tests.standin import StandInCluster

COUNTS = (100, 300, 1000)
GOAL_S = 1.0
STEADY = 10
MOST_PASSES = 45
"""Passes after which jobs that still have no plan are counted and reported."""
EVERY = timedelta(seconds=15)


def measure(options: Options) -> Section:
    """Time passes at each number of jobs."""
    found = {}
    for count in COUNTS:
        print(f"  {count} jobs", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "tests.bench.passes", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[count] = json.loads(done.stdout)
    kinds = {
        "first": "first pass",
        "planning": "slowest pass until all are planned",
        "steady": "pass after that, median",
        "steady_worst": "pass after that, slowest",
        "anew": "slowest pass after a new forecast",
    }
    rows = [[text, *(f"{found[count][kind]:.3f} s" for count in COUNTS)] for kind, text in kinds.items()]
    rows += [
        ["passes until all are planned", *(str(found[count]["passes"]) for count in COUNTS)],
        ["passes until all follow a new forecast", *(str(found[count]["passes_anew"]) for count in COUNTS)],
        ["jobs without a plan then", *(str(found[count]["unplanned"]) for count in COUNTS)],
        ["memory before, MB", *(f"{found[count]['before_mb']:.0f}" for count in COUNTS)],
        ["memory at its peak, MB", *(f"{found[count]['peak_mb']:.0f}" for count in COUNTS)],
    ]
    most = found[COUNTS[-1]]
    table = Table("Controller passes over waiting jobs", ("", *(f"{count} jobs" for count in COUNTS)), rows)
    figures = [Figure(f"{text}, {COUNTS[-1]} jobs", most[kind], "s", at_most=GOAL_S) for kind, text in kinds.items()]
    return Section("passes", [*figures, Figure("peak memory of that process", most["peak_mb"], "MB")], [table])


class Passes:
    """A controller over waiting jobs, with a clock that is set by hand."""

    def __init__(self, folder: Path, count: int) -> None:
        zones = {zone: {"provider": "demo"} for zone in ("A", "B", "C")}
        self._site: Site = resolve_site({"zones": zones, "slot": "15m"}, folder, "bench")
        self._store = Store(self._site.store_url)
        self._now = datetime.now(timezone.utc)
        with self._store.write() as session:
            for index in range(count):
                jobs.submit(session, _spec(index), self._now)
        self.bring_forecast(1.0)
        full = StandInCluster(free=[Node("n", "n", "A", 8, 8, 0, 0)])
        self._controller = Controller(self._store, self._site, lambda: full, clock=lambda: self._now)

    def bring_forecast(self, scale: float) -> None:
        """Keep a forecast of the demo grid, times `scale`, for every zone."""
        with self._store.write() as session:
            for index, zone in enumerate(self._site.zones):
                curve = DemoGrid().forecast(zone, self._now)
                points = [p._replace(g_per_kwh=(p.g_per_kwh or 0.0) * scale * (1 + 0.1 * index)) for p in curve.points]
                forecasts.keep(session, zone, "plan", self._now, replace(curve, zone=zone, points=tuple(points)), None)

    def one_s(self) -> float:
        """Seconds of the next pass, which comes EVERY after the last."""
        self._now += EVERY
        started_s = time.perf_counter()
        self._controller.run_pass()
        return time.perf_counter() - started_s

    def until(self, done: Callable[[], bool]) -> list[float]:
        """Seconds of each pass until `done`, at least one."""
        took_s = [self.one_s()]
        while not done() and len(took_s) < MOST_PASSES:
            took_s.append(self.one_s())
        return took_s

    def unplanned(self) -> int:
        """Jobs that have no plan yet."""
        with self._store.read() as session:
            return int(session.scalar(select(func.count()).select_from(Job).where(Job.planned_for.is_(None))) or 0)

    def planned_for(self) -> set[str]:
        """Digests of what the plans were made from."""
        with self._store.read() as session:
            return {text for text in session.scalars(select(Job.planned_for)) if text is not None}


def _run(count: int) -> dict[str, Any]:
    before_mb = _peak_mb()
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        passes = Passes(Path(folder), count)
        planning = passes.until(lambda: passes.unplanned() == 0)
        steady = [passes.one_s() for _ in range(STEADY)]
        old = passes.planned_for()
        passes.bring_forecast(1.2)
        anew = passes.until(lambda: not (passes.planned_for() & old))
        return {
            "first": planning[0],
            "planning": max(planning),
            "passes": len(planning),
            "steady": statistics.median(steady),
            "steady_worst": max(steady),
            "anew": max(anew),
            "passes_anew": len(anew),
            "unplanned": passes.unplanned(),
            "before_mb": before_mb,
            "peak_mb": _peak_mb(),
        }


def _spec(index: int) -> JobSpec:
    """A job that waits, for the only node is full; each has a length of its own."""
    return JobSpec.model_validate(
        {
            "name": f"job-{index}",
            "job": "train",
            "model": {"config": {"model_type": "llama"}},
            "data": {"files": ["corpus.txt"]},
            "training": {"steps": 1000 + index, "batch_size": 8},
            "workers": {"count": 2, "gpus": 1},
            "carbon": {"finish_by": "36h"},
        }
    )


def _peak_mb() -> float:
    """Greatest resident memory of the process until now, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]))))
