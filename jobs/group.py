"""The worker group: what ranks must do or know together, so that none waits for one that has failed.
In: a Place. Out: values that rank 0 found, errors that every rank raises, and the word at a check (Check).
The loop in jobs.train asks it at step boundaries; the control messages travel by gloo whatever the device.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from jobs.pace import Action
from jobs.patience import is_outside
from jobs.place import Place
from jobs.spec import JobFault, LowtideError, Unavailable

Value = TypeVar("Value")
_ACTIONS: tuple[Action, ...] = ("go", "checkpoint", "stop")


@dataclass(frozen=True)
class Check:
    """What all ranks know after a check: what to do now, steps until the next check, how the training goes."""

    action: Action
    distance: int
    loss: float
    """Mean over the ranks of the newest step's loss."""
    first_bad_step: int | None
    """The first step since the start of the segment whose loss was NaN or infinite on some rank."""
    written: bool
    """Whether every rank has written its part of the checkpoint that is in flight."""


class Group:
    """The ranks of one segment. Uses the process group that Ray made, or makes one from torchrun's environment."""

    def __init__(self, place: Place) -> None:
        self.rank, self.world_size = place.rank, place.world_size
        if not dist.is_initialized():
            _initialise(place)
            atexit.register(_end)  # not sooner: DeepSpeed keeps its groups for as long as the process lives
        assert (dist.get_rank(), dist.get_world_size()) == (place.rank, place.world_size)
        self._side = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")

    def first(self, act: Callable[[], Value]) -> Value:
        """What `act` returns on rank 0, on every rank; where it raises, every rank raises."""
        box: list[Any] = [None]
        fault: BaseException | None = None
        if self.rank == 0:
            try:
                box = [("value", act())]
            except Exception as caught:  # every rank must hear of it, or they wait for ever; rank 0 raises it below
                fault = caught
                box = [("fault", _portable(caught, 0))]
        dist.broadcast_object_list(box, src=0, group=self._side)
        if fault is not None:
            raise fault
        kind, content = box[0]
        if kind == "fault":
            raise content
        value: Value = content
        return value

    def wait(self) -> None:
        """Wait until every rank has come here."""
        dist.barrier(group=self._side)

    def each(self, act: Callable[[], Value]) -> list[Value]:
        """What `act` returned on every rank, in the order of ranks; where it raises on any, every rank raises.

        `act` must not talk to the other ranks itself, for a rank that fails in it would leave them waiting.
        """
        fault: BaseException | None = None
        mine: tuple[str, Any]
        try:
            mine = ("value", act())
        except Exception as caught:  # as above
            fault = caught
            mine = ("fault", _portable(caught, self.rank))
        everyone: list[Any] = [None] * self.world_size
        dist.all_gather_object(everyone, mine, group=self._side)
        if fault is not None:
            raise fault
        for kind, content in everyone:
            if kind == "fault":
                raise content
        return [content for _, content in everyone]

    def check(self, action: Action, distance: int, loss: float, first_bad_step: int | None, written: bool) -> Check:
        """One small exchange at a step boundary: rank 0's `action` and `distance`, everyone's loss and `written`."""
        bad = math.inf if first_bad_step is None else float(first_bad_step)
        mine = torch.tensor([_ACTIONS.index(action), distance, loss, bad, written], dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(rows, mine, group=self._side)
        table = [row.tolist() for row in rows]
        bad = min(row[3] for row in table)
        return Check(
            action=_ACTIONS[int(table[0][0])],
            distance=int(table[0][1]),
            loss=sum(row[2] for row in table) / self.world_size,
            first_bad_step=None if math.isinf(bad) else int(bad),
            written=all(row[4] for row in table),
        )

    def sum(self, values: list[float]) -> list[float]:
        """The sums of each value over the ranks, added in the order of ranks."""
        mine = torch.tensor(values, dtype=torch.float64)
        rows = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(rows, mine, group=self._side)
        return [float(value) for value in torch.stack(rows).sum(dim=0)]


def _portable(fault: Exception, rank: int) -> LowtideError:
    """An error that every rank can raise: lowtide's own as it is; any other named with its rank.

    Unavailable where a disk is full or gone, else a JobFault.
    """
    if isinstance(fault, LowtideError):
        return fault
    return (Unavailable if is_outside(fault) else JobFault)(f"rank {rank}: {type(fault).__name__}: {fault}")


def _end() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _initialise(place: Place) -> None:
    """A process group from torchrun's variables; a lone worker needs none of them."""
    backend = "gloo" if place.device == "cpu" else "nccl"
    if place.world_size > 1:
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
        return
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "29500")  # DeepSpeed reads it; the store below needs no port
    store = torch._C._distributed_c10d.HashStore()
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
