"""The undisturbed run, without Ray, controller or meter.
In: a job's spec. Out: the folder of its checkpoints.
The campaign runs it beside the rounds; every job that came through faults must end as it did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.local import HOST, _free_ports

ROOT = Path(__file__).resolve().parents[2]


class Reference:
    """Bare ranks that train a spec from its first step to its last."""

    def __init__(self, folder: Path, spec: Mapping[str, Any], workers: int) -> None:
        self._folder, self._workers = folder, workers
        (folder / "whole").mkdir(parents=True)
        (folder / "whole" / "spec.json").write_text(json.dumps(spec))
        (port,) = _free_ports(1)
        common: dict[str, Any] = {
            "WORLD_SIZE": workers,
            "LOCAL_WORLD_SIZE": workers,
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1,
        }
        common |= {"MASTER_ADDR": HOST, "DS_ACCELERATOR": "cpu"}
        self._ranks = []
        for rank in range(workers):
            names = {**common, "RANK": rank, "LOCAL_RANK": rank}
            env = {**os.environ, **{name: str(value) for name, value in names.items()}}
            command = [sys.executable, "-m", "tests.integration.rank", str(folder), str(rank), str(workers), "whole:0"]
            with (folder / f"log-{rank}.txt").open("wb") as log:
                self._ranks.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT))

    def checkpoints(self) -> Path:
        """The folder of its checkpoints, once it is done."""
        codes = [rank.wait() for rank in self._ranks]
        told = self._folder / "whole" / "outcome-rank-0.json"
        if any(codes) or json.loads(told.read_text())["error"] is not None:
            logs = [(self._folder / f"log-{rank}.txt").read_text()[-3000:] for rank in range(self._workers)]
            raise AssertionError("the undisturbed run failed\n" + "\n".join(logs))
        return self._folder / "whole" / "checkpoints"

    def end(self) -> None:
        """End its processes."""
        for rank in self._ranks:
            rank.kill()
            rank.wait()
