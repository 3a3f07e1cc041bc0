"""Saving: a rank's files written side by side, straight from the tensors' memory, checksummed and flushed as they go.
In: states and the paths that they belong at. Out: the files, safely on disk, with their sizes and checksums.
jobs.engine calls it in the writer's thread; it talks to no other rank, so a fault is raised where it happens.

The files are torch's, as DeepSpeed reads them. They carry no CRC32 (jobs.engine turns it off): the manifest has
their checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch

from jobs.checkpoints.checkpoint import Sealed
from jobs.checkpoints.snapshot import Held
from jobs.checkpoints.stream import Stream
from jobs.patience import GivenUp, Pulse, together
from jobs.spec import Unavailable


def write(held: Sequence[Held], over: Event) -> dict[Path, Sealed]:
    """Write the files; GivenUp once `over` is set, Unavailable where the disk does not take them or is silent."""
    if not held:
        return {}
    sealed = together(str(held[0][1].parent), [_writing(state, path, over) for state, path in held])
    return {path: each for (_, path), each in zip(held, sealed, strict=True)}


def _writing(state: Any, path: Path, over: Event) -> Callable[[Pulse], Sealed]:
    def act(pulse: Pulse) -> Sealed:
        def beat() -> None:
            if over.is_set():
                raise GivenUp
            pulse.beat()

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with Stream(path, beat, pulse.beat) as stream:
                serialise(state, stream)
                return stream.seal()
        except OSError as fault:
            raise Unavailable(f"{path}: {fault.strerror or fault}") from fault

    return act


def serialise(state: Any, stream: Stream) -> None:
    """torch.save; what the disk says to it is raised as it was, for torch makes a RuntimeError of its own of it."""
    try:
        torch.save(state, stream)  # type: ignore[arg-type]
    except Exception:
        if stream.fault is not None:
            raise stream.fault from None
        raise
