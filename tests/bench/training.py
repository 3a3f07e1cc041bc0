"""Throughput under lowtide against the same loop in a bare TorchTrainer, and the seconds that pause and resume take.
In: rounds of interleaved runs in one embedded Ray. Out: ratios with their spread, latencies by part, cores by process.
The runs themselves are in `tests.bench.runs`.

torchrun runs before Ray starts and after it has ended, so that nothing of Ray's takes a share of its cores.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.api import prepare, start_local, stop_local
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.runs import TRAIN_S, WORKERS, ZONE, Run, Runs

GOAL = 0.98
_START = ("submit", "driver", "workers", "imports", "data", "find", "build", "restore", "first_step")
_PAUSE = ("step_end", "checkpoint", "publish", "end")


def measure(options: Options) -> Section:
    """Run everything; Ray is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        return _measured(Path(folder), options.rounds)


def _measured(folder: Path, rounds: int) -> Section:
    corpus = folder / "corpus.txt"
    corpus.write_text("The tide goes out by night and comes in by day, whatever the grid may say.\n" * 4000)
    prepare()
    runs = Runs(folder, corpus)
    state = folder / "state"
    alone = [_told("torchrun", runs.under_torchrun())]
    under: list[Run] = []
    bare: list[Run] = []
    address = start_local(str(state), ZONE, max(WORKERS, os.cpu_count() or 1))
    try:
        runs.attach(address, json.loads((state / "ray.json").read_text())["pid"])
        for index in range(rounds):
            for way in (0, 1) if index % 2 == 0 else (1, 0):  # so that a machine that slows down favours neither
                if way == 0:
                    under.append(_told("under lowtide", runs.under_lowtide()))
                else:
                    bare.append(_told("bare trainer", runs.in_bare_trainer()))
    finally:
        stop_local(str(state))
    alone.append(_told("torchrun", runs.under_torchrun()))
    return Section(
        "training",
        figures=[*_ratios(under, bare, alone), *_latencies(under)],
        tables=[_throughput(under, bare, alone), _cores(under, bare), _starts(under), _pauses(under)],
        remarks=[
            f"Llama of 7 M parameters, ZeRO-2, {WORKERS} workers of one thread, {TRAIN_S:.0f} s a run after its "
            f"warm-up; a checkpoint has {under[0].checkpoint_bytes / 1e6:.0f} MB."
        ],
    )


def _told(way: str, run: Run) -> Run:
    print(f"  {way}: {run.steps_per_s:.3f} steps/s over {run.steps} steps", file=sys.stderr, flush=True)
    return run


def _ratios(under: Sequence[Run], bare: Sequence[Run], alone: Sequence[Run]) -> list[Figure]:
    """The geometric mean of each round's ratio, whose spread is by the rounds' own differences."""
    logs = [math.log(ours.steps_per_s / theirs.steps_per_s) for ours, theirs in zip(under, bare, strict=True)]
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    ratio = math.exp(statistics.mean(logs))
    torchrun = _mean([run.steps_per_s for run in alone])
    return [
        Figure("throughput over a bare TorchTrainer", ratio, at_least=GOAL, note=f"standard error {error:.3f}"),
        Figure("throughput over torchrun", _mean([run.steps_per_s for run in under]) / torchrun, note="no Ray beside"),
        Figure("bare TorchTrainer over torchrun", _mean([run.steps_per_s for run in bare]) / torchrun),
    ]


def _latencies(under: Sequence[Run]) -> list[Figure]:
    resumes = [run.to_first_step_s for run in under[1:]] or [math.nan]
    return [
        Figure("pause: asked to checkpoint published and ended", _mean([run.to_end_s for run in under]), "s"),
        Figure("pause: asked to CPUs free", _mean([run.to_release_s for run in under]), "s"),
        Figure("first start: ordered to first step done", under[0].to_first_step_s, "s"),
        Figure("resume: ordered to first step done", _mean(resumes), "s", note=f"{len(under) - 1} resumes"),
    ]


def _throughput(under: Sequence[Run], bare: Sequence[Run], alone: Sequence[Run]) -> Table:
    ways = {"under lowtide": under, "bare TorchTrainer": bare, "torchrun": alone}
    most = max(len(runs) for runs in ways.values())
    rows = []
    for name, runs in ways.items():
        cells = [f"{run.steps_per_s:.3f}" for run in runs] + [""] * (most - len(runs))
        rows.append([name, f"{_mean([run.steps_per_s for run in runs]):.3f}", *cells])
    return Table("Throughput, steps/s", ("way", "mean", *(f"run {index + 1}" for index in range(most))), rows)


def _cores(under: Sequence[Run], bare: Sequence[Run]) -> Table:
    ours, theirs = _mean_of([run.cores for run in under]), _mean_of([run.cores for run in bare])
    kinds = sorted({*ours, *theirs}, key=lambda kind: -ours.get(kind, 0.0))
    rows = [[kind, f"{ours.get(kind, 0.0):.4f}", f"{theirs.get(kind, 0.0):.4f}"] for kind in kinds]
    return Table("Cores used while training", ("process", "under lowtide", "bare TorchTrainer"), rows)


def _starts(under: Sequence[Run]) -> Table:
    """Seconds from the order to the end of the first step; what no part claims is between the processes."""
    first, later = _start_parts(under[:1]), _start_parts(under[1:])
    rows = [[part, f"{first[part]:.2f}", f"{later[part]:.2f}" if later else ""] for part in first]
    return Table("From order to first step, s", ("part", "first start", "resumes, mean"), rows)


def _start_parts(runs: Sequence[Run]) -> dict[str, float]:
    return _by_part(runs, _START, [run.to_first_step_s for run in runs])


def _pauses(under: Sequence[Run]) -> Table:
    parts = _by_part(under, _PAUSE, [run.to_end_s for run in under])
    parts["until the CPUs are free"] = _mean([run.to_release_s - run.to_end_s for run in under])
    return Table("From stop to ended, s", ("part", "mean"), [[part, f"{parts[part]:.2f}"] for part in parts])


def _by_part(runs: Sequence[Run], names: Sequence[str], totals_s: Sequence[float]) -> dict[str, float]:
    """Means of the parts, of what is left of the total, and of the total; empty for no runs."""
    if not runs:
        return {}
    parts = {name: _mean([run.parts_s.get(name, 0.0) for run in runs]) for name in names}
    total_s = _mean(totals_s)
    return {**parts, "elsewhere": total_s - sum(parts.values()), "in all": total_s}


def _mean_of(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {kind: _mean([one.get(kind, 0.0) for one in many]) for kind in {kind for one in many for kind in one}}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
