"""The very loop that segments run, without lowtide around it: in a bare TorchTrainer, or as one of torchrun's ranks.
In: a JSON file with a segment's order, a file to count steps in, and seconds after which to end. Out: the counts, and
the seconds of each part of its start beside them.
`tests.bench.ground` submits it as a Ray job or starts it by torchrun; it runs by path, knowing nothing of `tests`.

It imports of `cluster` no more than the reader of orders and a clock: no meter hears of it, and no control actor.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

from cluster.began import began_at_s
from cluster.order import number_of, read_order
from jobs.place import Place


class Counter:
    """A Watch that tells nobody: it writes 24 bytes a step to a file, and ends the loop when its time is up."""

    def __init__(self, task: dict[str, Any], rank: int) -> None:
        self._enough_s: float = task["train_s"]
        self._counts = task["counts"] if rank == 0 else None
        self._file: int | None = None
        self._trained_s = 0.0
        self._first_at_s = 0.0

    def phase(self, name: str) -> None:
        """Nobody is told."""

    def note(self, text: str) -> None:
        """Nobody is told."""

    def stop_wanted(self) -> bool:
        """Whether the time is up."""
        return self._trained_s >= self._enough_s

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        """Write the time, the number of steps, and when the first ended."""
        self._trained_s = trained_s
        if self._counts is None:
            return
        if self._file is None:
            self._file = os.open(self._counts, os.O_RDWR | os.O_CREAT)
        self._first_at_s = self._first_at_s or time.time()
        os.pwrite(self._file, struct.pack("ddd", time.time(), trained_steps, self._first_at_s), 0)


def train(task: dict[str, Any], rank: int, world_size: int, local_rank: int) -> None:
    """One rank's run; rank 0 leaves when it and its driver began, and the seconds of its parts."""
    entered_at_s = time.time()
    from jobs.train import run

    order = read_order(task["order"])
    number = number_of(order.segment_id)
    place = Place(rank, world_size, local_rank, "cpu", Path(order.checkpoints), None, order.segment_id, segment=number)
    outcome = run(order.spec, place, Counter(task, rank))
    if rank == 0:
        times = {name: at_s for name, at_s in task.items() if name.endswith("_at_s")}
        times |= {"began_at_s": began_at_s(), "entered_at_s": entered_at_s}
        Path(task["counts"]).with_suffix(".parts").write_text(json.dumps({**times, **outcome.parts_s}))


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
    task |= {"driver_at_s": began_at_s(), "fit_at_s": time.time()}
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
