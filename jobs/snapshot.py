"""What DeepSpeed would write, held as it was at a step boundary, so that it is written while training goes on.
In: DeepSpeed's checkpoint writer and what it is given. Out: files, when `write` is called, from any thread.
jobs.engine puts it in the writer's place; jobs.save has the copies written.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from jobs.patience import LANES


class Snapshot:
    """In the place of DeepSpeed's checkpoint engine: all else is as the given one has it."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._copies = False
        self._held: list[tuple[Any, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._given, name)

    def begin(self, copies: bool) -> None:
        """A new checkpoint: with `copies` training may go on before `write`, else it must not."""
        self._copies, self._held = copies, []

    def preserves_storage_sharing(self) -> bool:
        """Whether DeepSpeed must copy tensors before it gives them here; not where they are copied anyway."""
        return not self._copies and bool(self._given.preserves_storage_sharing())

    def save(self, state_dict: Any, path: str) -> None:
        """Hold what belongs in a file, as it is now where `begin` said so, until `write`."""
        self._held.append((frozen(state_dict, {}) if self._copies else state_dict, path))

    def write(self) -> list[Path]:
        """Write this rank's files, side by side, and let go of what was held; where they are."""
        held, self._held = self._held, []
        with ThreadPoolExecutor(max_workers=LANES, thread_name_prefix="lowtide-write") as pool:
            list(pool.map(lambda each: self._given.save(*each), held))
        return [Path(path) for _, path in held]


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
