"""The very loop that segments run, without lowtide around it: in a bare TorchTrainer, or as one of torchrun's ranks.
In: a JSON file with a segment's order, seconds to warm up and to train, and a file to report to. Out: that report.
`tests.bench.training` submits it as a Ray job or starts it by torchrun; it runs by path, knowing nothing of `tests`.

It imports of `cluster` no more than the reader of orders: no meter hears of it, and no control actor.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cluster.order import read_order
from jobs.place import Outcome, Place


class Stopwatch:
    """A Watch that tells nobody anything; it ends the loop once that has trained for long enough."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._warm_s: float = task["warm_s"]
        self._enough_s: float = task["warm_s"] + task["train_s"]
        self._report = Path(task["report"])
        self._warm: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def phase(self, name: str) -> None:
        """Nobody is told."""

    def stop_wanted(self) -> bool:
        """Whether the time is up."""
        return self._last[1] >= self._enough_s

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        """Keep the last figures and those at the end of the warm-up."""
        self._last = (trained_steps, trained_s)
        if self._warm is None and trained_s >= self._warm_s:
            self._warm = self._last
            self._report.with_suffix(".warm").touch()  # who measures the processes' CPU time starts now

    def write(self, outcome: Outcome) -> None:
        """Report the steps and seconds since the warm-up."""
        warm = self._warm or (0, 0.0)
        steps, duration_s = self._last[0] - warm[0], self._last[1] - warm[1]
        self._report.write_text(json.dumps({"steps": steps, "duration_s": duration_s, "parts_s": outcome.parts_s}))


def train(task: dict[str, Any], rank: int, world_size: int, local_rank: int) -> None:
    """One rank's run; rank 0 reports."""
    from jobs.train import run

    order = read_order(task["order"])
    place = Place(rank, world_size, local_rank, "cpu", Path(order.checkpoints), None, order.segment_id)
    watch = Stopwatch(task)
    outcome = run(order.spec, place, watch)
    if rank == 0:
        watch.write(outcome)


def in_ray_train(task: dict[str, Any]) -> None:
    """The training function of the bare TorchTrainer."""
    import ray.train

    context = ray.train.get_context()
    train(task, context.get_world_rank(), context.get_world_size(), context.get_local_rank())


def fit(task: dict[str, Any]) -> None:
    """The trainer as a segment's driver makes it, with nothing beside it."""
    import ray
    from ray.job_config import JobConfig
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(job_config=JobConfig(_client_job=True), logging_level="warning")
    order = read_order(task["order"])
    TorchTrainer(
        in_ray_train,
        train_loop_config=task,
        scaling_config=ScalingConfig(
            num_workers=order.workers,
            resources_per_worker={"CPU": order.spec.workers.cpus},
            label_selector={"carbon-zone": order.zone},
        ),
        run_config=RunConfig(
            name=order.segment_id,
            storage_path=str(Path(order.checkpoints) / "ray"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
        torch_config=TorchConfig(backend="gloo"),
    ).fit()


def main() -> None:
    """As torchrun's rank where its variables are set, else as the driver of a TorchTrainer."""
    task = json.loads(Path(sys.argv[1]).read_text())
    if "TORCHELASTIC_RUN_ID" in os.environ:
        train(task, *(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    else:
        fit(task)


if __name__ == "__main__":
    main()
