"""One rank of several jobs without Ray: what torchrun would start, for tests that need real ranks and nothing else.
In: a folder, the rank, the worker count, and jobs as NAME:STOP (stop once so many steps are done; 0 never) or
NAME:STOP:SEGMENT, each with NAME/spec.json in the folder. Out: NAME/outcome-rank-N.json, or …-N-SEGMENT.json.
ranks.py starts it once for each rank.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jobs import pace, train
from jobs.checkpoints.save import Saver
from jobs.place import Phase, Place
from jobs.spec import JobSpec, LowtideError

# Checks at every step, so that a stop falls on the step that the test names however fast the machine is.
pace.CHECK_EVERY_S = 0.0
train.SAVE_AGAIN_S = (0.2, 0.2)


class Recorder:
    """Wants a stop once so many steps are done; keeps what it was told."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.step = 0
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.losses: dict[int, float] = {}

    def phase(self, name: Phase) -> None:
        self.phases.append(name)

    def stop_wanted(self) -> bool:
        return 0 < self.stop_at <= self.step

    def note(self, text: str) -> None:
        if text or self.notes:
            self.notes.append(text)

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        self.step = step
        if loss is not None:
            self.losses[step] = loss


class Unhurried(Saver):
    """Gives the disk time at every third question, so that several are written beside ten steps however slow it is."""

    _asked = 0

    @property
    def is_written(self) -> bool:
        self._asked += 1
        if self._asked % 3 == 0 and self._write is not None and self._write.beside is not None:
            wait([self._write.beside])
        return super().is_written


def main(folder: Path, rank: int, world_size: int, jobs: list[str]) -> None:
    train.Saver = Unhurried  # type: ignore[misc]
    dist.init_process_group("gloo")  # as Ray Train does before it calls the worker
    for job in jobs:
        name, stop_at, segment = (*job.split(":"), "0")[:3]
        spec = JobSpec.model_validate(json.loads((folder / name / "spec.json").read_text()))
        segment_id = f"{name}-{segment if segment != '0' else stop_at}"
        checkpoints = folder / name / "checkpoints"
        place = Place(rank, world_size, rank, "cpu", checkpoints, None, segment_id, segment=int(segment))
        watch = Recorder(int(stop_at))
        told: dict[str, Any] = {"error": None}
        try:
            told["outcome"] = asdict(train.run(spec, place, watch))
        except LowtideError as fault:
            told["error"] = f"{type(fault).__name__}: {fault}"
        told |= {"phases": watch.phases, "notes": watch.notes, "losses": watch.losses, "step": watch.step}
        suffix = f"-{segment}" if segment != "0" else ""
        (folder / name / f"outcome-rank-{rank}{suffix}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    # Without finalizing: DeepSpeed keeps its groups past destroy_process_group, and a thread of gloo's that drops its
    # last tensor while Python ends asks for a lock that is gone, which aborts the process now and then.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
