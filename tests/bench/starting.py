"""What a resume costs: seconds from the order to the first step, and the memory beside the workers.
In: an embedded Ray and a Llama of 26 million parameters. Out: ratios over the same loop in a bare TorchTrainer, and by
torchrun, with the parts of all three.
`tests.bench.ground` starts them in turns, from the same checkpoint.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.api import prepare
from tests.bench import cores
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.ground import BareStart, Ground, Stay

GOAL = 1.15
ROUNDS = 3
LLAMA = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 1376,
}
"""About 26 million parameters."""
_PARTS = {
    "submit": "order to the driver's process",
    "driver": "driver: imports, attaching, its meter",
    "controller": "Train's controller, or torchrun's launcher",
    "place": "waiting for room",
    "workers": "workers' processes up to the loop",
    "imports": "imports of torch and DeepSpeed",
    "group": "process group",
    "data": "data",
    "find": "finding and checking the checkpoint",
    "build": "model and engine",
    "restore": "loading the checkpoint",
    "first_step": "first step",
}
_BEFORE = ("submit", "driver", "controller", "place", "workers")
"""What comes before the loop."""
_OWN = {
    "segment's driver",
    "bare driver",
    "job supervisor",
    "Train's controller",
    "Train's barrier",
    "Train's dataset manager",
    "Train's cleaner",
}
"""Kinds of processes that each segment, or bare job, has for itself beside its workers."""


def measure(options: Options) -> Section:
    """A first start, then resumes and bare starts in turns; Ray is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        prepare()
        ground = Ground(Path(folder), LLAMA)
        try:
            ground.open()
            ground.start().pause()
            stays, bare, alone, memory_mb = [], [], [], []
            for _ in range(ROUNDS):
                segment = ground.start()
                memory_mb.append(cores.memory_mb(ground.head_pid))
                stays.append(segment.pause())
                bare.append(ground.bare_start())
                alone.append(ground.torchrun_start())
        finally:
            ground.close()
    return Section(
        "starting",
        figures=_figures(stays, bare, alone, memory_mb),
        tables=[_parts(stays, bare, alone), _memory(memory_mb, bare)],
        remarks=["torchrun starts beside an idle Ray, from the command; its two ranks have the workers' niceness"],
    )


def _figures(
    stays: Sequence[Stay],
    bare: Sequence[BareStart],
    alone: Sequence[BareStart],
    memory_mb: Sequence[Mapping[str, float]],
) -> list[Figure]:
    ours, theirs, torchrun = (_mean([each.to_first_step_s for each in side]) for side in (stays, bare, alone))
    return [
        Figure(
            "resume to first step, over a bare Ray job's with TorchTrainer",
            ours / theirs,
            at_most=GOAL,
            note=_ratios(stays, bare),
        ),
        Figure("resume to first step, over torchrun's", ours / torchrun, note=_ratios(stays, alone)),
        Figure("resume: ordered to first step done", ours, "s"),
        Figure("bare: submitted to first step done", theirs, "s"),
        Figure("torchrun: command to first step done", torchrun, "s"),
        Figure("memory of the segment's driver side", _mean([_beside_mb(each) for each in memory_mb]), "MB"),
        Figure("memory of the bare job's driver side", _mean([_beside_mb(each.memory_mb) for each in bare]), "MB"),
    ]


def _ratios(stays: Sequence[Stay], others: Sequence[BareStart]) -> str:
    return ", ".join(f"{a.to_first_step_s / b.to_first_step_s:.2f}" for a, b in zip(stays, others, strict=True))


def _beside_mb(memory_mb: Mapping[str, float]) -> float:
    return sum(mb for kind, mb in memory_mb.items() if kind in _OWN)


def _parts(*sides: Sequence[Stay] | Sequence[BareStart]) -> Table:
    columns = [{name: _mean([each.parts_s.get(name, 0.0) for each in side]) for name in _PARTS} for side in sides]
    rows = [[told, *(f"{column[name]:.2f}" for column in columns)] for name, told in _PARTS.items()]
    wholes = [_mean([each.to_first_step_s for each in side]) for side in sides]
    rest = [whole - sum(column.values()) for whole, column in zip(wholes, columns, strict=True)]
    rows += [["elsewhere", *(f"{rest_s:.2f}" for rest_s in rest)], ["in all", *(f"{whole:.2f}" for whole in wholes)]]
    before = [sum(column[name] for name in _BEFORE) for column in columns]
    rows.append(["of it before the loop", *(f"{before_s:.2f}" for before_s in before)])
    title = f"From order to first step, s (means of {len(sides[0])}, in turns)"
    return Table(title, ("part", "resume", "bare TorchTrainer", "torchrun"), rows)


def _memory(ours: Sequence[Mapping[str, float]], bare: Sequence[BareStart]) -> Table:
    theirs = [each.memory_mb for each in bare]
    kinds = {kind for each in (*ours, *theirs) for kind in each} - {"this bench"}
    order = sorted(kinds, key=lambda kind: (kind not in _OWN, kind == "workers", kind))
    rows = [
        [kind, "its own" if kind in _OWN else "" if kind == "workers" else "the cluster's"]
        + [f"{_mean([each.get(kind, 0.0) for each in side]):.0f}" for side in (ours, theirs)]
        for kind in order
    ]
    title = "Memory while training, MB (PSS: shared pages shared out)"
    return Table(title, ("process", "whose", "under lowtide", "bare"), rows)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
