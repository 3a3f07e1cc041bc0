"""Loading: what DeepSpeed reads of a checkpoint is read piece by piece, and given up after a silence.
In: a folder. Out: torch.load, bounded, for as long as DeepSpeed loads from it.
jobs.engine loads within it.

Ranks wait for each other while DeepSpeed loads, for as long as the slowest needs: only what reads files is bounded. One
rank that gives up ends, and those that wait for it learn of that by their connection.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jobs.patience import Pulse, bounded, reading, told_as


@contextmanager
def patiently(folder: Path) -> Iterator[None]:
    """Where torch.load, of whomever, raises Unavailable once a file says nothing for too long, or the disk is gone."""
    where, usual = str(folder), torch.load
    with told_as(where):
        bounded(where, lambda _pulse: os.listdir(folder))  # what DeepSpeed asks first: which files are there
    torch.load = functools.partial(_load, usual, where)
    try:
        with told_as(where):
            yield
    finally:
        torch.load = usual


def _load(load: Callable[..., Any], where: str, file: Any, *given: Any, **named: Any) -> Any:
    if not isinstance(file, (str, os.PathLike)):
        return load(file, *given, **named)
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpu = torch.cuda.current_device() if on_gpu else None

    def act(pulse: Pulse) -> Any:
        if gpu is not None:
            torch.cuda.set_device(gpu)  # each thread has its own
        if named.get("mmap"):  # nothing is read yet
            return load(file, *given, **named)
        with reading(Path(file), pulse.beat) as content:
            return load(content, *given, **named)

    return bounded(where, act)
