"""One rank of script jobs without Ray: the worker's own code, and a real script below it.
In: a folder, the rank, the worker count, and jobs as NAME:STOP, as rank.py takes them. Out: NAME/outcome-rank-N.json.
test_script.py starts it once for each rank.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from jobs import pace
from jobs.place import Place
from jobs.script import Seat, run
from jobs.spec import JobSpec, LowtideError
from tests.integration.rank import Recorder

pace.CHECK_EVERY_S = 0.0


class Impatient(Recorder):
    """Wants a stop at once where STOP is below zero."""

    def stop_wanted(self) -> bool:
        return self.stop_at < 0 or super().stop_wanted()


def main(folder: Path, rank: int, world_size: int, jobs: list[str]) -> None:
    dist.init_process_group("gloo")
    for job in jobs:
        name, stop_at = job.split(":")
        home = folder / name
        spec = JobSpec.model_validate(json.loads((home / "spec.json").read_text()))
        assert spec.script is not None and spec.script.folder is not None
        place = Place(rank, world_size, rank, "cpu", home / "checkpoints", None, f"{name}-{stop_at}")
        watch = Impatient(int(stop_at))
        told: dict[str, Any] = {"error": None}
        try:
            told["outcome"] = asdict(run(spec, place, watch, Seat("here", Path(spec.script.folder), env=spec.env)))
        except (LowtideError, RuntimeError) as fault:
            told["error"] = f"{type(fault).__name__}: {fault}"
        told |= {"phases": watch.phases, "losses": watch.losses, "step": watch.step}
        (home / f"outcome-rank-{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
