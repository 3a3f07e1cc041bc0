"""The undisturbed run, without Ray, controller or meter, and what a disturbed one is compared with.
In: a job's spec. Out: the folder of its checkpoints; where another folder differs from it, bit for bit.
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
MODEL = Path("final", "model", "model.safetensors")


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


def differing(undisturbed: Path, other: Path) -> list[str]:
    """What of the finished model, the weights, the optimizer and the random state is not the same, bit for bit."""
    import torch

    from tests.integration.ranks import differences

    if (undisturbed / MODEL).read_bytes() != (other / MODEL).read_bytes():
        return [str(MODEL)]
    newest = [json.loads((folder / "published.json").read_text())["published"][0] for folder in (undisturbed, other)]
    if newest[0] != newest[1]:
        return [f"the last step is {newest[1]}, not {newest[0]}"]
    sides = [folder / newest[0] for folder in (undisturbed, other)]
    names = [sorted(path.name for path in side.glob("*.pt")) for side in sides]
    if not names[0] or names[0] != names[1]:
        return ["the files of the last checkpoint"]
    found = []
    for name in names[0]:
        left, right = (torch.load(side / name, weights_only=False) for side in sides)
        found += [f"{name}{where}" for where in differences(left, right)]
    return found
