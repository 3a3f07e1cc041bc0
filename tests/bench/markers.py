"""What the marks within a step cost, as a share of the step: sampled ones, idle ones, and as often as they are sampled.
In: two real ranks of a small model, at ZeRO stages 2 and 3. Out: ratios within one run, each with its goal.
`tests.bench.__main__` prints it; `python -m tests.bench.markers FOLDER RANK STAGE` is one of the ranks.

The cost is that of the very calls of a step, counted in a real one and made again in a loop that does nothing else: a
difference of two timings of whole steps, which stands beside it, is lost in their noise. Every collective is made again
as one that is waited for apart, which costs most.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure, Options, Section, Table

GOAL = 0.002
WORKERS, STEPS, TURNS = 2, 60, 3000
STAGES = (2, 3)
ROOT = Path(__file__).resolve().parents[2]
SPEC = {
    "name": "marks",
    "job": "train",
    "model": {
        "config": {
            "model_type": "llama",
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 192,
        }
    },
    "data": {"files": ["x.txt"], "sequence_length": 64},
    "training": {"steps": 1000, "batch_size": 16, "micro_batch_size": 4},
    "workers": {"count": WORKERS, "gpus": 0},
}


def measure(options: Options) -> Section:
    """Both stages, one after the other."""
    found = {stage: _ranks(stage) for stage in STAGES}
    figures, rows = [], []
    for stage, told in found.items():
        step_s, idle_s, sampled_s = told["step_s"], told["idle_s"], told["sampled_s"]
        every = told["every"]
        cost = (idle_s * (every - 1) + sampled_s) / every / step_s
        figures.append(
            Figure(f"marks over a step, ZeRO-{stage}", cost, at_most=GOAL, note=f"1 step in {every} sampled")
        )
        note = f"standard error {told['error']:.3f}"
        figures.append(
            Figure(f"step with every one sampled over one with none, ZeRO-{stage}", told["ratio"], note=note)
        )
        micro = [f"{1e6 * each:.1f}" for each in (idle_s, sampled_s)]
        rows.append([f"ZeRO-{stage}", f"{1e3 * step_s:.1f}", str(told["marks"]), str(told["calls"]), *micro])
    columns = ("", "step, ms", "marks a step", "collectives a step", "idle, µs a step", "sampled, µs a step")
    return Section("markers", figures, [Table("Marks within a step, rank 0", columns, rows)])


def _ranks(stage: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        shared = {"WORLD_SIZE": WORKERS, "LOCAL_WORLD_SIZE": WORKERS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = []
        for rank in range(WORKERS):
            own = {**shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1, "DS_ACCELERATOR": "cpu"}
            own |= {"PYTHONWARNINGS": "ignore"}
            env = {**os.environ, **{name: str(value) for name, value in own.items()}}
            command = [sys.executable, "-m", "tests.bench.markers", folder, str(rank), str(stage)]
            ranks.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL))
        if any(rank.wait(timeout=300) for rank in ranks):
            raise RuntimeError(f"a rank of ZeRO-{stage} failed")
        told: dict[str, Any] = json.loads((Path(folder) / "told.json").read_text())
        return told


def _rank(folder: Path, rank: int, stage: int) -> None:
    import numpy as np

    from jobs import engine as engines
    from jobs.data import Samples, feed
    from jobs.group import Group
    from jobs.marks import EVERY
    from jobs.model import build
    from jobs.objective import next_token
    from jobs.place import Place
    from jobs.spec import JobSpec

    spec = JobSpec.model_validate({**SPEC, "deepspeed": {"zero_optimization": {"stage": stage}}})
    assert spec.model is not None and spec.training is not None
    place = Place(rank, WORKERS, rank, "cpu", folder, None, "marks")
    deepspeed = engines.prepare(place)
    group = Group(place)
    engine = engines.Engine(deepspeed, spec, place, build(spec.model, 256, 64, None, 0), next_token)
    calls = _counted(deepspeed.comm.comm.cdb)
    tokens = np.random.default_rng(0).integers(0, 256, 64 * 512 + 1)
    batches = feed(Samples(tokens, np.arange(512), 64), spec.training, rank, WORKERS)
    marks: Any = engine._marks
    took_s: dict[bool, list[float]] = {True: [], False: []}
    for step in range(2 * STEPS + 6):
        sampled = step % 2 == 0
        marks._every = 1 if sampled else 1 << 40
        group.wait()
        calls.clear()
        began_s = time.perf_counter()
        engine.step(step, 1000, batches(step))
        if step >= 6:
            took_s[sampled].append(time.perf_counter() - began_s)
    micros = spec.training.batch_size // WORKERS // spec.training.micro_batch_size
    if rank == 0:
        step_s = statistics.median(took_s[False])
        ratios = [one / other for one, other in zip(took_s[True], took_s[False], strict=True)]
        told = {
            "every": EVERY,
            "step_s": step_s,
            "ratio": statistics.median(took_s[True]) / step_s,
            "error": 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5,
            "marks": 4 * micros + 2,
            "calls": len(calls),
            "idle_s": _again_s(micros, len(calls), every=1 << 40),
            "sampled_s": _again_s(micros, len(calls), every=1),
        }
        (folder / "told.json").write_text(json.dumps(told))
    group.wait()
    os._exit(0)  # as tests/integration/rank.py says


def _counted(backend: Any) -> list[str]:
    """The names of the collectives that are called from now on."""
    from jobs.marks import COLLECTIVES

    calls: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return call(*arguments, **named)

        return act

    for name in COLLECTIVES:
        setattr(backend, name, counted(name, getattr(backend, name)))
    return calls


class _Nothing:
    """A backend, and the handle that its calls return."""

    def all_reduce(self) -> _Nothing:
        return self

    def wait(self) -> None:
        """Nothing to wait for."""


def _again_s(micros: int, calls: int, every: int) -> float:
    """Seconds that the marks of one step take: the median of some rounds of many steps."""
    from jobs.marks import CpuTimer, Marks

    rounds = []
    for _ in range(5):
        marks, backend = Marks(CpuTimer(), every), _Nothing()
        marks.watch(backend)
        began_s = time.perf_counter()
        for _ in range(TURNS):
            marks.begin()
            for _ in range(micros):
                marks.enter("forward")
                marks.enter("backward")
                marks.enter("optimizer")
                marks.enter("data")
            for _ in range(calls):
                backend.all_reduce().wait()
            marks.end()
        rounds.append((time.perf_counter() - began_s) / TURNS)
    return statistics.median(rounds)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
