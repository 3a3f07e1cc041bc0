"""What a resume costs: seconds from the order to the first step, and the memory beside the workers.
In: an embedded Ray and a Llama of 26 million parameters. Out: ratios over the same loop in a bare TorchTrainer.
`tests.bench.ground` starts both, in turns, from the same checkpoint.
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
_PARTS = ("submit", "driver", "workers", "imports", "data", "find", "build", "restore", "first_step")
_SHARED = ("this bench", "dashboard, agents", "GCS", "raylet", "attachment", "control actor", "meter", "workers")
"""Not a segment's own, or its workers'."""


def measure(options: Options) -> Section:
    """A first start, then resumes and bare starts in turns; Ray is ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        prepare()
        ground = Ground(Path(folder), LLAMA)
        try:
            ground.open()
            ground.start().pause()
            stays, bare, memory_mb = [], [], []
            for _ in range(ROUNDS):
                segment = ground.start()
                memory_mb.append(cores.memory_mb(ground.head_pid))
                stays.append(segment.pause())
                bare.append(ground.bare_start())
        finally:
            ground.close()
    return Section(
        "starting", figures=_figures(stays, bare, memory_mb), tables=[_parts(stays), _memory(memory_mb, bare)]
    )


def _figures(
    stays: Sequence[Stay], bare: Sequence[BareStart], memory_mb: Sequence[Mapping[str, float]]
) -> list[Figure]:
    ours, theirs = _mean([stay.to_first_step_s for stay in stays]), _mean([each.to_first_step_s for each in bare])
    ratios = ", ".join(f"{a.to_first_step_s / b.to_first_step_s:.2f}" for a, b in zip(stays, bare, strict=True))
    return [
        Figure(
            "resume to first step, over a bare Ray job's with TorchTrainer", ours / theirs, at_most=GOAL, note=ratios
        ),
        Figure("resume: ordered to first step done", ours, "s"),
        Figure("bare: submitted to first step done", theirs, "s"),
        Figure("memory of the segment's driver side", _mean([_beside_mb(each) for each in memory_mb]), "MB"),
        Figure("memory of the bare job's driver side", _mean([_beside_mb(each.memory_mb) for each in bare]), "MB"),
    ]


def _beside_mb(memory_mb: Mapping[str, float]) -> float:
    return sum(mb for kind, mb in memory_mb.items() if kind not in _SHARED)


def _parts(stays: Sequence[Stay]) -> Table:
    parts = {name: _mean([stay.parts_s.get(name, 0.0) for stay in stays]) for name in _PARTS}
    parts["elsewhere"] = _mean([stay.to_first_step_s for stay in stays]) - sum(parts.values())
    rows = [[name, f"{duration_s:.2f}"] for name, duration_s in parts.items()]
    return Table("From order to first step, s", ("part", f"mean of {len(stays)} resumes"), rows)


def _memory(ours: Sequence[Mapping[str, float]], bare: Sequence[BareStart]) -> Table:
    theirs = [each.memory_mb for each in bare]
    kinds = sorted({kind for each in (*ours, *theirs) for kind in each} - {"this bench"})
    rows = [
        [kind, *(f"{_mean([each.get(kind, 0.0) for each in side]):.0f}" for side in (ours, theirs))] for kind in kinds
    ]
    return Table("Memory while training, MB (shared pages shared out)", ("process", "under lowtide", "bare"), rows)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)
