"""Saves against plain writing of the same bytes, in turns, and pauses that find a save under way.
In: a Place and a spec, on every rank at once. Out: seconds of each turn, as rank 0 saw them.
tests.bench.pausing runs it on its ranks, and makes ratios of the turns of a round.

Plainly means: each rank, at the same time as the others, writes as many files of the same bytes as it has in the
checkpoint, from memory, one after the other, and syncs each. No checksum, no name that moves, nothing removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch.distributed as dist

from jobs import engine as engines
from jobs.checkpoints.checkpoint import Sealed
from jobs.checkpoints.save import Saver
from jobs.checkpoints.shelf import Shelf
from jobs.data import Micro
from jobs.engine import Engine
from jobs.group import Group
from jobs.model import build
from jobs.objective import next_token
from jobs.pace import Parts
from jobs.place import Place
from jobs.spec import JobSpec

ROUNDS = 12
_CHUNK_BYTES = 1 << 20
_VOCABULARY = 257

Turn = dict[str, float]


class _Noting(Engine):
    """An engine that keeps what it wrote last."""

    files: dict[Path, Sealed]

    def finish_save(self, over: Event) -> dict[Path, Sealed]:
        self.files = super().finish_save(over)
        return self.files


class Saves:
    """One rank's part in the turns; all ranks take the same ones."""

    def __init__(self, place: Place, spec: JobSpec) -> None:
        assert spec.model is not None and spec.data is not None and spec.training is not None
        deepspeed = engines.prepare(place)
        group = Group(place)
        self._place, self._training, self._length = place, spec.training, spec.data.sequence_length
        module = build(spec.model, _VOCABULARY, self._length, None, 0)
        self._engine = _Noting(deepspeed, spec, place, module, next_token)
        self._parts = Parts()
        self._shelf = Shelf(place, 1, self._parts)
        self._saver = Saver(group, place, self._shelf, self._parts)
        self._step = 0
        self._bytes: list[bytes] = []

    def rounds(self, count: int = ROUNDS) -> list[dict[str, Turn]]:
        """So many rounds of a turn of each kind, each round in the order of the one before turned round."""
        self._train()
        self._save(beside=False)
        self._published()
        self._bytes = [path.read_bytes() for path in self._files()]
        kinds: dict[str, Callable[[], Turn]] = {
            "save": self._alone,
            "plainly": self._plainly,
            "abandoned": lambda: self._under_way(abandons=True),
            "waited": lambda: self._under_way(abandons=False),
        }
        found = []
        for _ in range(count):
            found.append({name: self._turn(act) for name, act in kinds.items()})
            kinds = dict(reversed(kinds.items()))
        self._saver.close()
        self._engine.close()
        return found

    def _turn(self, act: Callable[[], Turn]) -> Turn:
        self._train()
        self._shelf.settle()
        self._parts.seconds.clear()
        dist.barrier()
        return act()

    def _alone(self) -> Turn:
        """A save that the training waits for, as at a pause: its whole, and by part."""
        began_s = time.monotonic()
        self._save(beside=False)
        held_s = time.monotonic() - began_s
        self._published()
        whole_s = time.monotonic() - began_s
        written_s, published_s = self._parts.seconds["checkpoint"] - held_s, self._parts.seconds["publish"]
        settling_s = time.monotonic()
        self._shelf.settle()
        removed_s = time.monotonic() - settling_s
        return {"s": whole_s, "hold": held_s, "write": written_s, "publish": published_s, "remove": removed_s}

    def _under_way(self, abandons: bool) -> Turn:
        """A save that comes a step after another began beside the training: that one abandoned, or waited for."""
        self._save(beside=True)
        self._train()
        began_s = time.monotonic()
        if abandons:
            self._saver.abandon()
        else:
            self._published()
        let_go_s = time.monotonic() - began_s
        self._save(beside=False)
        self._published()
        return {"s": time.monotonic() - began_s, "let_go": let_go_s}

    def _plainly(self) -> Turn:
        target = self._place.checkpoints / f"plain-{self._place.rank}"
        target.mkdir()
        dist.barrier()
        began_s = time.monotonic()
        for number, content in enumerate(self._bytes):
            _write_plainly(target / str(number), memoryview(content))
        dist.barrier()
        took_s = time.monotonic() - began_s
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
        return {"s": took_s}

    def _files(self) -> list[Path]:
        """The files of this rank in the newest checkpoint, which was renamed since they were written."""
        return [path.parent.with_suffix("") / path.name for path in self._engine.files]

    def _train(self) -> None:
        rows = np.random.default_rng(self._step).integers(0, _VOCABULARY, (1, self._length + 1), dtype=np.int64)
        samples = np.arange(1, dtype=np.int64)
        self._engine.step(self._step, 1 << 30, [Micro(self._step, samples, rows)])
        self._step += 1

    def _save(self, beside: bool) -> None:
        meta: dict[str, Any] = {"step": self._step, "metrics": {}, "essentials": {}}
        self._saver.begin(self._engine, meta, 0, beside)

    def _published(self) -> None:
        self._saver.finish(waits=True)


def _write_plainly(path: Path, content: memoryview) -> None:
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), _CHUNK_BYTES):
            file.write(content[start : start + _CHUNK_BYTES])
        os.fsync(file.fileno())
