"""Fresh processes as the ranks of a segment, as torchrun would start them: no Ray, one machine, CPUs and gloo.
In: a folder with NAME/spec.json, and jobs as rank.py takes them. Out: what every rank told, in the same folder.
The tests of pausing and resizing run their segments by it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.checkpoints import checkpoint

MODEL = Path("final", "model", "model.safetensors")
ROOT = Path(__file__).resolve().parents[2]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "attention_dropout": 0.1,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2}
"""Its dropout is 0.1 by default; its weights are tied."""


def spec_of(name: str, corpus: Path, steps: int, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "job": "train",
        "model": {"config": LLAMA},
        "data": {"files": [str(corpus)], "sequence_length": 32, "holdout": 0.05},
        "training": {"steps": steps, "batch_size": 8, "micro_batch_size": 2, "warmup_steps": 2, "learning_rate": 1e-2},
        "workers": {"count": "1..4", "gpus": 0},
        **changes,
    }


def write_corpus(path: Path, lines: int) -> Path:
    path.write_text("".join(f"line {n} of a corpus that repeats little: {n * n}\n" for n in range(lines)))
    return path


def run_ranks(folder: Path, workers: int, *jobs: str) -> None:
    """Run the jobs one after the other on fresh ranks; each job is NAME:STOP as in rank.py."""
    ranks = start_ranks(folder, workers, *jobs)
    codes = [rank.wait() for rank in ranks]
    if codes != [0] * workers:
        pytest.fail("\n".join((folder / f"log-{rank}.txt").read_text()[-4000:] for rank in range(workers)))


def start_ranks(folder: Path, workers: int, *jobs: str) -> list[subprocess.Popen[bytes]]:
    """The processes of `run_ranks`, begun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(workers):
        names = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": workers,
            "LOCAL_WORLD_SIZE": workers,
            "MASTER_PORT": port,
        }
        env = {**os.environ, **{name: str(value) for name, value in names.items()}}
        env |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "LOWTIDE_AUDIT": "1"}
        command = [sys.executable, "-m", "tests.integration.rank", str(folder), str(rank), str(workers), *jobs]
        log = (folder / f"log-{rank}.txt").open("ab")
        with log:
            ranks.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT))
    return ranks


def told(folder: Path, name: str, rank: int = 0, segment: int = 0) -> dict[str, Any]:
    suffix = f"-{segment}" if segment else ""
    document: dict[str, Any] = json.loads((folder / name / f"outcome-rank-{rank}{suffix}.json").read_text())
    return document


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """Where two checkpoints' contents differ, tensors compared bit for bit."""
    if isinstance(left, torch.Tensor):
        return [] if torch.equal(left, right) and left.dtype == right.dtype else [where]
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return [f"{where}: keys"]
        return [found for key in left for found in differences(left[key], right[key], f"{where}.{key}")]
    if isinstance(left, (list, tuple)):
        if len(left) != len(right):
            return [f"{where}: length"]
        pairs = zip(left, right, strict=True)
        return [found for n, pair in enumerate(pairs) for found in differences(*pair, f"{where}[{n}]")]
    if hasattr(left, "tobytes"):
        return [] if left.tobytes() == right.tobytes() else [where]
    if hasattr(left, "__dict__") and not callable(left):
        return differences(vars(left), vars(right), where)
    return [] if left == right or callable(left) else [f"{where}: {left!r} is not {right!r}"]


def differing(undisturbed: Path, other: Path) -> list[str]:
    """What of the finished model, the weights, the optimizer and the random state is not the same, bit for bit.

    Both are folders of a finished job's checkpoints.
    """
    if (undisturbed / MODEL).read_bytes() != (other / MODEL).read_bytes():
        return [str(MODEL)]
    newest = [json.loads((folder / "published.json").read_text())["published"][0] for folder in (undisturbed, other)]
    steps = [checkpoint.order(name)[0] for name in newest]
    if steps[0] != steps[1]:
        return [f"the last step is {steps[1]}, not {steps[0]}"]
    sides = [undisturbed / newest[0], other / newest[1]]
    names = [sorted(path.name for path in side.glob("*.pt")) for side in sides]
    if not names[0] or names[0] != names[1]:
        return ["the files of the last checkpoint"]
    found = []
    for name in names[0]:
        left, right = (torch.load(side / name, weights_only=False) for side in sides)
        found += [f"{name}{where}" for where in differences(left, right)]
    return found
