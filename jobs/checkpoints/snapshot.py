"""What DeepSpeed would write, held as it was at a step boundary, so that it is written while training goes on.
In: what DeepSpeed gives its checkpoint writer. Out: the states and the paths that they belong at.
jobs.engine puts it in the writer's place; `saving` writes what it held.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from jobs.checkpoints.masters import held_once

Held = tuple[Any, Path]
"""What belongs in a file, and where that is."""


class Snapshot:
    """In the place of DeepSpeed's checkpoint engine: it writes nothing; all else is as the given one has it."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._copies = self._once = False
        self._held: list[Held] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._given, name)

    def begin(self, copies: bool, once: bool = False) -> None:
        """A new checkpoint: with `copies` training may go on before what is held is written, else it must not.

        `once`: without the weights that the optimizer's shards hold, too.
        """
        self._copies, self._once, self._held = copies, once, []

    def preserves_storage_sharing(self) -> bool:
        """Whether DeepSpeed must copy tensors before it gives them here; not where they are copied anyway."""
        return not self._copies and bool(self._given.preserves_storage_sharing())

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing: who writes makes the folder. A rank that failed here would leave the others waiting for it."""

    def save(self, state_dict: Any, path: str) -> None:
        """Hold what belongs in a file, as it is now where `begin` said so."""
        state = held_once(state_dict) if self._once else state_dict
        self._held.append((frozen(state, {}) if self._copies else state, Path(path)))

    def take(self) -> list[Held]:
        """All that is held, and no longer."""
        held, self._held = self._held, []
        return held


def frozen(item: Any, seen: dict[Any, torch.Tensor]) -> Any:
    """A copy in host memory that later steps do not change; tensors that share all of their memory still do.

    `seen` keeps the copies of one file's tensors.
    """
    if isinstance(item, torch.Tensor):
        key = (item.data_ptr(), item.dtype, item.shape, item.stride()) if item.numel() else id(item)
        if key not in seen:
            seen[key] = item.detach().to("cpu", copy=True)
        return seen[key]
    if isinstance(item, dict):
        return type(item)((key, frozen(value, seen)) for key, value in item.items())
    if type(item) in (list, tuple):
        return type(item)(frozen(value, seen) for value in item)
    return copy.deepcopy(item)
