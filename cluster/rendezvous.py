"""Where the ranks of a segment meet: a backend of Ray Train that leaves torch to the workers.
In: Ray Train's worker group. Out: torchrun's variables on every worker; `jobs.group` makes the process group of them.
The segment's driver hands it to Ray Train.

Ray Train's own backend for torch does the same, and has the driver and Train's controller import torch for it: seconds
of every start, and two hundred megabytes each for as long as the segment runs.
"""

from __future__ import annotations

import os
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig


class Rendezvous(BackendConfig):  # type: ignore[misc]
    """Ray Train's configuration of a backend."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What prepares the workers."""
        return _Meeting


class _Meeting(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True  # ranks of one node reach each other's memory, as NCCL likes it

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Tell every worker its rank and where rank 0 listens."""
        address, port = worker_group.execute_single(0, _address_and_port)
        worker_group.execute(_take_seat, address, port)


def _address_and_port() -> tuple[str, int]:
    from ray.train._internal.utils import get_address_and_port

    found: tuple[str, int] = get_address_and_port()
    return found


def _take_seat(address: str, port: int) -> None:
    """The variables that torchrun would set."""
    context = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }


def device() -> str:
    """The CUDA device of this worker among those that its node's workers share, such as `cuda:1`."""
    own = [str(gpu) for gpu in ray.get_gpu_ids()]
    shared = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return f"cuda:{shared.index(own[0]) if own and own[0] in shared else 0}"
