"""What pausing costs: saves against plain writing of the same bytes, and training beside a save each minute.
In: nothing but two cores. Out: both as ratios within one run, with the parts of a save; bare ranks, without Ray.
Started with a rank it is one of the ranks: `python -m tests.bench.pausing FOLDER RANK`.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.place import Place
from jobs.spec import JobSpec
from tests.bench.figure import Figure, Options, Section, Table
from tests.bench.saves import ROUNDS as TURNS
from tests.bench.saves import Saves, Turn

WORKERS = 2
ROUNDS = 4
TRAIN_S = 16.0
OFTEN_S = 4.0
"""Seconds between saves where the cost of one is measured: often enough that it shows."""
MINUTE_S = 60.0
MODEL = {
    "model_type": "llama",
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "intermediate_size": 1376,
}
"""A Llama of about 26 million parameters."""


def measure(_options: Options) -> Section:
    """Start the ranks, and make figures of what rank 0 found."""
    with tempfile.TemporaryDirectory(prefix="lowtide-pausing-", dir=os.environ.get("LOWTIDE_BENCH_DIR")) as name:
        folder = Path(name)
        (folder / "corpus.txt").write_text("".join(f"line {n} of what is read: {n * n}\n" for n in range(5000)))
        _run_ranks(folder)
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    rounds, turns = found["rounds"], found["turns"]
    costs_s = [each["often"]["step_s"] / each["quiet"]["step_s"] - 1 for each in rounds]
    per_minute = [cost * each["often"]["between_s"] / MINUTE_S for cost, each in zip(costs_s, rounds, strict=True)]
    size_bytes = rounds[0]["size_bytes"]
    return Section(
        "pausing",
        figures=[
            Figure("a save, of writing and syncing the same bytes plainly", _ratio(turns, "save"), "x", at_most=1.25),
            Figure(
                "a pause a step after a save began beside the training, of the same",
                _ratio(turns, "abandoned"),
                "x",
                note=f"{_ratio(turns, 'waited'):.2f} x where that save is waited for instead of abandoned",
            ),
            Figure("throughput lost by a save each minute", 100 * statistics.median(per_minute), "%", at_most=2.0),
        ],
        tables=[_turns(turns), _table(rounds)],
        remarks=[
            f"ZeRO 2, fp32, {WORKERS} ranks, {size_bytes / 1e6:.0f} MB a checkpoint, saved by both ranks at once",
            f"ratios of {TURNS} rounds, the median; plainly: the same bytes in as many files by the same ranks at once",
        ],
    )


def _ratio(turns: list[dict[str, Turn]], kind: str) -> float:
    return statistics.median(each[kind]["s"] / each["plainly"]["s"] for each in turns)


def _turns(turns: list[dict[str, Turn]]) -> Table:
    columns = ("turn", "median", "least", "most", "of plainly")
    rows = [_row(kind, [each[kind]["s"] for each in turns], _ratio(turns, kind)) for kind in turns[0]]
    rows += [_row(f"save: {part}", [each["save"][part] for each in turns]) for part in turns[0]["save"] if part != "s"]
    return Table("saves", columns, rows)


def _row(name: str, took_s: list[float], ratio: float | None = None) -> tuple[str, ...]:
    figures = (f"{pick(took_s):.3f} s" for pick in (statistics.median, min, max))
    return (name, *figures, "" if ratio is None else f"{ratio:.2f} x")


def _table(rounds: list[dict[str, Any]]) -> Table:
    columns = ("round", "step", "step beside saves", "saves", "copied in")
    rows = [
        (
            str(number),
            f"{1000 * each['quiet']['step_s']:.0f} ms",
            f"{1000 * each['often']['step_s']:.0f} ms",
            str(each["often"]["saves"]),
            f"{each['often']['copy_s'] / max(1, each['often']['saves']):.2f} s",
        )
        for number, each in enumerate(rounds, 1)
    ]
    return Table("rounds", columns, rows)


def _run_ranks(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(WORKERS):
        names = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": WORKERS,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        env = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in names.items()}}
        command = [sys.executable, "-m", "tests.bench.pausing", str(folder), str(rank)]
        with (folder / f"log-{rank}.txt").open("ab") as log:
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    if any([rank.wait() for rank in ranks]):
        raise RuntimeError("\n".join((folder / f"log-{rank}.txt").read_text()[-2000:] for rank in range(WORKERS)))


@dataclass
class Stopwatch:
    """A Watch that ends the training after so many seconds of it, and keeps when its steps ended."""

    train_s: float
    first_at_s: float = 0.0
    last_at_s: float = 0.0
    steps: int = 0
    saves: int = 0
    training: bool = False

    def phase(self, name: str) -> None:
        """Count the saves that are begun while it trains."""
        self.saves += self.training and name == "checkpoint"
        self.training = name == "train"

    def stop_wanted(self) -> bool:
        """Whether the time is up."""
        return self.steps > 1 and self.last_at_s - self.first_at_s >= self.train_s

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        """The first step warms up: time counts from its end."""
        self.last_at_s = time.monotonic()
        if trained_steps == 1:
            self.first_at_s = self.last_at_s
        self.steps = trained_steps

    def note(self, text: str) -> None:
        """Nobody is told."""

    @property
    def step_s(self) -> float:
        """Seconds a step, with all that came between."""
        return (self.last_at_s - self.first_at_s) / (self.steps - 1)


def rank_main(folder: Path, rank: int) -> None:
    """Turns of saves and of plain writing; then rounds of quiet training and training with saves."""
    import torch.distributed as dist

    from jobs.train import run

    dist.init_process_group("gloo")
    turns = Saves(Place(rank, WORKERS, rank, "cpu", folder / "saves", None, "saves"), _spec(folder, 3600.0)).rounds()
    rounds = []
    for number in range(ROUNDS):
        found: dict[str, Any] = {}
        for kind, every_s in (("quiet", 3600.0), ("often", OFTEN_S)):
            spec = _spec(folder, every_s)
            watch = Stopwatch(TRAIN_S)
            outcome = run(spec, Place(rank, WORKERS, rank, "cpu", folder / "checkpoints", None, f"{number}"), watch)
            parts = outcome.parts_s
            saves = watch.saves - 1  # the last one is the end's
            between_s = (watch.last_at_s - watch.first_at_s) / max(1, saves)
            copy_s = parts.get("copy", 0.0)
            found[kind] = {"step_s": watch.step_s, "saves": saves, "between_s": between_s, "copy_s": copy_s}
            if kind == "quiet":
                found["size_bytes"] = outcome.checkpoint_bytes
        rounds.append(found)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps({"rounds": rounds, "turns": turns}))


def _spec(folder: Path, every_s: float) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "pausing",
            "job": "train",
            "model": {"config": MODEL},
            "data": {"files": [str(folder / "corpus.txt")], "sequence_length": 64},
            "training": {"steps": 1_000_000, "batch_size": 2, "micro_batch_size": 1},
            "deepspeed": {"zero_optimization": {"stage": 2}},
            "workers": {"count": WORKERS, "gpus": 0},
            "checkpoint": {"every": f"{every_s:g}s", "keep": 1},
        }
    )


if __name__ == "__main__":
    rank_main(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # as tests/integration/rank.py does, for the same reason
