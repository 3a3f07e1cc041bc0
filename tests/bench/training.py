"""Throughput under lowtide against the same loop in a bare TorchTrainer, and the seconds that pause and resume take.
In: an embedded Ray and one spec. Out: a ratio with its spread, latencies by part, cores by process.
`tests.bench.ground` runs the ways to train, `tests.bench.turns` lets two of them train in turns.

torchrun runs before Ray starts and after it has ended, so that nothing of Ray's takes a share of its cores.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.api import prepare
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.ground import WORKERS, Ground, Stay, count
from tests.bench.turns import TURN_S, Side, Turns

GOAL = 0.98
SEGMENTS = 4
"""The first starts afresh, the others resume; the last one trains in turns with the bare trainer."""
TRAINED_S = 3.0
"""Training before a pause."""
_START = ("submit", "driver", "workers", "imports", "data", "find", "build", "restore", "first_step")
_PAUSE = ("step_end", "checkpoint", "publish", "end")


def measure(options: Options) -> Section:
    """Run everything; Ray is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        prepare()
        ground = Ground(Path(folder))
        alone = [_torchrun(ground)]
        try:
            ground.open()
            stays, ours, theirs = _in_ray(ground, options.rounds)
        finally:
            ground.close()
        alone.append(_torchrun(ground))
    return Section(
        "training",
        figures=[*_ratios(ours, theirs, alone), *_latencies(stays)],
        tables=[_throughput(ours, theirs, alone), _cores(ours, theirs), _starts(stays), _pauses(stays)],
        remarks=[
            f"Llama of 7 M parameters, ZeRO-2, {WORKERS} workers of one thread; turns of {TURN_S:.0f} s; "
            f"a checkpoint has {stays[0].checkpoint_bytes / 1e6:.0f} MB."
        ],
    )


def _torchrun(ground: Ground) -> float:
    steps_per_s = ground.torchrun_steps_per_s()
    _tell(f"torchrun: {steps_per_s:.3f} steps/s")
    return steps_per_s


def _in_ray(ground: Ground, rounds: int) -> tuple[list[Stay], Side, Side]:
    """Start, pause and resume; then the last segment and the bare trainer in turns."""
    stays = []
    for index in range(SEGMENTS):
        segment = ground.start()
        if index < SEGMENTS - 1:
            time.sleep(TRAINED_S)
            stays.append(segment.pause())
            _tell(f"first step after {stays[-1].to_first_step_s:.1f} s, ended after {stays[-1].to_end_s:.1f} s")
    bare_id, counts = ground.bare()
    ours = Side("under lowtide", segment.segment_id, segment.look, ("meter", "control actor", "attachment"))
    theirs = Side("bare TorchTrainer", bare_id, lambda: count(counts))
    turns = Turns((ours, theirs), ground.head_pid)
    try:
        turns.take(rounds)
    finally:
        turns.end()
    _tell(f"in turns: {ours.steps_per_s:.3f} and {theirs.steps_per_s:.3f} steps/s")
    return stays, ours, theirs


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _ratios(ours: Side, theirs: Side, alone: Sequence[float]) -> list[Figure]:
    """The ratio over all turns; its spread comes from the rounds' own ratios."""
    logs = [
        math.log((steps / seconds) / (other_steps / other_seconds))
        for steps, seconds, other_steps, other_seconds in zip(
            ours.steps, ours.seconds, theirs.steps, theirs.seconds, strict=True
        )
    ]
    ratio, torchrun = ours.steps_per_s / theirs.steps_per_s, _mean(alone)
    error = f"standard error {statistics.stdev(logs) / math.sqrt(len(logs)):.3f}" if len(logs) > 1 else ""
    return [
        Figure("throughput over a bare TorchTrainer", ratio, at_least=GOAL, note=error),
        Figure("workers' CPU time a step, over the bare one's", _per_step_s(ours) / _per_step_s(theirs)),
        Figure("cores added beside the workers", _beside(ours) - _beside(theirs), "cores", note=f"of {os.cpu_count()}"),
        Figure("throughput over torchrun", ours.steps_per_s / torchrun, note="which has no Ray beside it"),
        Figure("bare TorchTrainer over torchrun", theirs.steps_per_s / torchrun),
    ]


def _latencies(stays: Sequence[Stay]) -> list[Figure]:
    return [
        Figure("pause: asked to published and ended", _mean([stay.to_end_s for stay in stays]), "s"),
        Figure("pause: asked to CPUs free", _mean([stay.to_release_s for stay in stays]), "s"),
        Figure("first start: ordered to first step done", stays[0].to_first_step_s, "s"),
        Figure("resume: ordered to first step done", _mean([stay.to_first_step_s for stay in stays[1:]]), "s"),
    ]


def _throughput(ours: Side, theirs: Side, alone: Sequence[float]) -> Table:
    rows = [
        [
            side.name,
            f"{side.steps_per_s:.3f}",
            str(sum(side.steps)),
            f"{sum(side.seconds):.0f}",
            f"{_per_step_s(side):.3f}",
        ]
        for side in (ours, theirs)
    ]
    return Table(
        "Throughput",
        ("way", "steps/s", "steps", "s", "workers' CPU s a step"),
        [*rows, *(["torchrun", f"{steps_per_s:.3f}", "", "", ""] for steps_per_s in alone)],
    )


def _per_step_s(side: Side) -> float:
    return side.cores["workers"] / side.steps_per_s


def _beside(side: Side) -> float:
    return math.fsum(used for kind, used in side.cores.items() if kind != "workers")


def _cores(ours: Side, theirs: Side) -> Table:
    kinds = sorted({*ours.cores, *theirs.cores}, key=lambda kind: -ours.cores.get(kind, 0.0))
    rows = [[kind, f"{ours.cores.get(kind, 0.0):.4f}", f"{theirs.cores.get(kind, 0.0):.4f}"] for kind in kinds]
    return Table("Cores used while training", ("process", ours.name, theirs.name), rows)


def _starts(stays: Sequence[Stay]) -> Table:
    """Seconds from the order to the end of the first step; what no part claims is between the processes."""
    first = _by_part(stays[:1], _START, stays[0].to_first_step_s)
    later = _by_part(stays[1:], _START, _mean([stay.to_first_step_s for stay in stays[1:]]))
    rows = [[part, f"{first[part]:.2f}", f"{later[part]:.2f}"] for part in first]
    return Table("From order to first step, s", ("part", "first start", f"mean of {len(stays) - 1} resumes"), rows)


def _pauses(stays: Sequence[Stay]) -> Table:
    parts = _by_part(stays, _PAUSE, _mean([stay.to_end_s for stay in stays]))
    parts["then, until the CPUs are free"] = _mean([stay.to_release_s - stay.to_end_s for stay in stays])
    rows = [[part, f"{duration_s:.2f}"] for part, duration_s in parts.items()]
    return Table("From the word to stop, s", ("part", f"mean of {len(stays)} pauses"), rows)


def _by_part(stays: Sequence[Stay], names: Sequence[str], total_s: float) -> dict[str, float]:
    """Means of the parts, of what is left of the total, and the total."""
    parts = {name: _mean([stay.parts_s.get(name, 0.0) for stay in stays]) for name in names}
    return {**parts, "elsewhere": total_s - sum(parts.values()), "in all": total_s}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
