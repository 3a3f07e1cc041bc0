"""One rank of a job without Ray: what torchrun would start, for tests that need real ranks and nothing else.
In: a folder with spec.json, the rank, the worker count and the step to stop at (0: never). Out: outcome-rank-N.json.
test_resume_bitwise.py starts it once for each rank.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from jobs import pace
from jobs.place import Phase, Place
from jobs.spec import JobSpec
from jobs.train import run


class Recorder:
    """Wants a stop once a step has been taken; keeps what it was told."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.step = 0
        self.phases: list[str] = []
        self.losses: dict[int, float] = {}

    def phase(self, name: Phase) -> None:
        self.phases.append(name)

    def stop_wanted(self) -> bool:
        return 0 < self.stop_at <= self.step

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        self.step = step
        if loss is not None:
            self.losses[step] = loss


# Checks at every step, so that a stop falls on the step that the test names however fast the machine is.
pace.CHECK_EVERY_S = 0.0


def main(folder: Path, rank: int, world_size: int, stop_at: int) -> None:
    spec = JobSpec.model_validate(json.loads((folder / "spec.json").read_text()))
    checkpoints = folder / "checkpoints"
    place = Place(rank, world_size, rank, "cpu", checkpoints, None, f"{spec.name}-{stop_at}")
    watch = Recorder(stop_at)
    outcome = run(spec, place, watch)
    told = {"outcome": asdict(outcome), "phases": watch.phases, "losses": watch.losses, "step": watch.step}
    (folder / f"outcome-rank-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
