"""Ray Train's trainer for one segment, without the actors that a segment has no use for.
In: an order. Out: a trainer whose `fit` runs `cluster.worker.train` on the segment's workers.
The segment's driver calls it; nothing else imports Ray Train before the workers do.

Ray Train starts two more actors for every run, each a process of 120 MB and more than a second of a core just when the
workers start: one hands out shards of Ray datasets, of which a segment has none; one frees the placement group where
the controller dies, which Ray does itself once the segment's driver, that waits for the controller, has ended.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray._private.state import available_resources_per_node
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster import installation, rendezvous
from cluster.api import SegmentOrder
from cluster.labels import selector
from cluster.order import VARIABLE

_UNUSED = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
"""By name: with a Ray that calls them otherwise a segment starts later, and no less right."""


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray Train's trainer, less what only costs."""

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if type(each).__name__ not in _UNUSED]


def trainer(order: SegmentOrder) -> Trainer:
    """The trainer of the order; the controller alone retries, so that every attempt is a segment of its own."""
    for module in (installation, rendezvous):  # a worker's own `cluster` may be a user's folder
        cloudpickle.register_pickle_by_value(module)
    workers = order.spec.workers
    resources: dict[str, float] = {"CPU": workers.cpus}
    if workers.gpus:
        resources["GPU"] = workers.gpus
    return Trainer(
        installation.guarded("cluster.worker", "train"),
        train_loop_config={"document": os.environ[VARIABLE]},
        scaling_config=ScalingConfig(
            num_workers=order.workers,
            use_gpu=workers.gpus > 0,
            resources_per_worker=resources,
            # On as few nodes as hold them: what crosses nodes is slower.
            placement_strategy="PACK",
            label_selector=selector(order, available_resources_per_node()),
        ),
        run_config=RunConfig(
            name=order.segment_id,
            storage_path=str(Path(order.checkpoints) / "ray"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
        backend_config=rendezvous.Rendezvous(),
    )
