"""A job stopped twice and resumed ends, bit for bit, as the undisturbed one: weights, optimizer and random state.
In: tiny real models on two real ranks (gloo, DeepSpeed on CPUs), dropout on so that random state matters.
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

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
STEPS = 10
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "attention_dropout": 0.1,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2}
"""Its dropout is 0.1 by default."""

CASES: dict[str, dict[str, Any]] = {
    "stage0": {"deepspeed": {"zero_optimization": {"stage": 0}}},
    "stage1": {"deepspeed": {"zero_optimization": {"stage": 1}}},
    "stage2-bf16": {
        "model": {"config": GPT2},
        "deepspeed": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
    },
    "stage3": {"deepspeed": {"zero_optimization": {"stage": 3}, "gradient_clipping": 1.0}},
    "distill": {
        "job": "distill",
        "distill": {"teacher": {"config": {**LLAMA, "hidden_size": 48}}, "temperature": 2.0, "alpha": 0.9},
        "deepspeed": {"zero_optimization": {"stage": 2}},
    },
}


def spec_of(name: str, corpus: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "job": "train",
        "model": {"config": LLAMA},
        "data": {"files": [str(corpus)], "sequence_length": 32, "holdout": 0.05},
        "training": {"steps": STEPS, "batch_size": 8, "micro_batch_size": 2, "warmup_steps": 2, "learning_rate": 1e-2},
        "workers": {"count": WORKERS, "gpus": 0},
        **changes,
    }


def run_ranks(folder: Path, *jobs: str) -> None:
    """Run the jobs one after the other on two fresh ranks; each job is NAME:STOP as in rank.py."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(WORKERS):
        names = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": WORKERS,
            "LOCAL_WORLD_SIZE": WORKERS,
            "MASTER_PORT": port,
        }
        env = {**os.environ, **{name: str(value) for name, value in names.items()}}
        env |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.integration.rank", str(folder), str(rank), str(WORKERS), *jobs]
        log = (folder / f"log-{rank}.txt").open("ab")
        with log:
            ranks.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT))
    codes = [rank.wait() for rank in ranks]
    if codes != [0] * WORKERS:
        pytest.fail("\n".join((folder / f"log-{rank}.txt").read_text()[-4000:] for rank in range(WORKERS)))


def told(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / name / f"outcome-rank-{rank}.json").read_text())
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case once undisturbed, and once stopped after three and after seven steps and resumed."""
    folder = tmp_path_factory.mktemp("bitwise")
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"line {n} of a corpus that repeats little: {n * n}\n" for n in range(300)))
    names = [*CASES, "diverging"]
    for name in names:
        changes = CASES.get(name, {})
        for kind in ("whole", "pieces"):
            (folder / f"{name}-{kind}").mkdir()
            (folder / f"{name}-{kind}" / "spec.json").write_text(json.dumps(spec_of(name, corpus, **changes)))
    wild = spec_of("diverging", corpus)
    wild["training"] |= {"learning_rate": 1e30, "warmup_steps": 0}
    (folder / "diverging-whole" / "spec.json").write_text(json.dumps(wild))
    run_ranks(folder, *(f"{name}-whole:0" for name in names))
    run_ranks(folder, *(f"{name}-pieces:2" for name in CASES))
    run_ranks(folder, *(f"{name}-pieces:6" for name in CASES))
    run_ranks(folder, *(f"{name}-pieces:0" for name in CASES))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_job_stopped_twice_ends_bit_for_bit_as_the_undisturbed_one(trained: Path, name: str) -> None:
    whole, pieces = (trained / f"{name}-{kind}" / "checkpoints" for kind in ("whole", "pieces"))
    assert told(trained, f"{name}-pieces")["phases"][:3] == ["start", "restore", "train"]
    files = sorted(path.name for path in (whole / f"step-{STEPS:08d}").glob("*.pt"))
    assert files == sorted(path.name for path in (pieces / f"step-{STEPS:08d}").glob("*.pt"))
    for file in files:
        left, right = (torch.load(side / f"step-{STEPS:08d}" / file, weights_only=False) for side in (whole, pieces))
        assert differences(left, right) == []
    model = Path("final", "model", "model.safetensors")
    assert (whole / model).read_bytes() == (pieces / model).read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_losses_after_a_resume_are_those_of_the_undisturbed_job(trained: Path, name: str) -> None:
    whole, pieces = told(trained, f"{name}-whole"), told(trained, f"{name}-pieces")
    assert pieces["losses"].items() <= whole["losses"].items()
    assert pieces["outcome"]["metrics"] == whole["outcome"]["metrics"]
    assert whole["outcome"]["metrics"]["loss"] < whole["losses"]["1"]


@pytest.mark.parametrize("name", CASES)
def test_ranks_agree_on_the_outcome(trained: Path, name: str) -> None:
    mine, other = (told(trained, f"{name}-whole", rank)["outcome"] for rank in range(WORKERS))
    assert {**mine, "parts_s": None} == {**other, "parts_s": None}
    assert mine["done"] and mine["step"] == STEPS and mine["checkpoint_bytes"] > 0


def test_a_loss_that_is_not_finite_fails_every_rank_with_its_step(trained: Path) -> None:
    for rank in range(WORKERS):
        error = told(trained, "diverging-whole", rank)["error"]
        assert error.startswith("JobFault: step ")
        assert "the loss is not finite" in error
