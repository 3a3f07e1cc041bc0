"""A job stopped twice and resumed ends, bit for bit, as the undisturbed one: weights, optimizer and random numbers.
In: tiny real models on two real ranks (gloo, DeepSpeed on CPUs), dropout on so that random numbers matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.ranks import GPT2, LLAMA, differences, run_ranks, spec_of, told, write_corpus

WORKERS = 2
STEPS = 10
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


BESIDE = ("stage1", "stage2-bf16", "stage3")
"""Cases that save as often as they can, and once resume from what was written while they trained on."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case once undisturbed, and once stopped after three and after seven steps and resumed."""
    folder = tmp_path_factory.mktemp("bitwise")
    corpus = write_corpus(folder / "corpus.txt", lines=300)
    names = [*CASES, "diverging"]
    for name in names:
        changes = CASES.get(name, {})
        for kind in ("whole", "pieces"):
            (folder / f"{name}-{kind}").mkdir()
            (folder / f"{name}-{kind}" / "spec.json").write_text(json.dumps(spec_of(name, corpus, STEPS, **changes)))
    wild = spec_of("diverging", corpus, STEPS)
    wild["training"] |= {"learning_rate": 1e30, "warmup_steps": 0}
    (folder / "diverging-whole" / "spec.json").write_text(json.dumps(wild))
    run_ranks(folder, WORKERS, *(f"{name}-whole:0" for name in names))
    run_ranks(folder, WORKERS, *(f"{name}-pieces:2" for name in CASES))
    run_ranks(folder, WORKERS, *(f"{name}-pieces:6" for name in CASES))
    run_ranks(folder, WORKERS, *(f"{name}-pieces:0" for name in CASES))
    for name in BESIDE:
        (folder / f"{name}-beside").mkdir()
        often = spec_of(name, corpus, STEPS, **CASES[name], checkpoint={"every": "0.001s", "keep": 100})
        (folder / f"{name}-beside" / "spec.json").write_text(json.dumps(often))
    run_ranks(folder, WORKERS, *(f"{name}-beside:0" for name in BESIDE))
    for name in BESIDE:
        checkpoints = folder / f"{name}-beside" / "checkpoints"
        published = json.loads((checkpoints / "published.json").read_text())["published"]
        (folder / f"{name}-beside" / "published.txt").write_text("\n".join(published))
        (checkpoints / "published.json").write_text(json.dumps({"published": published[len(published) // 2 :]}))
        (checkpoints / "final").rename(checkpoints / "final-before")
    run_ranks(folder, WORKERS, *(f"{name}-beside:0" for name in BESIDE))
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


@pytest.mark.parametrize("name", BESIDE)
def test_a_checkpoint_written_while_training_went_on_is_the_state_of_its_step(trained: Path, name: str) -> None:
    whole, beside = (trained / f"{name}-{kind}" / "checkpoints" for kind in ("whole", "beside"))
    published = (trained / f"{name}-beside" / "published.txt").read_text().split()
    assert published[0] == f"step-{STEPS:08d}"
    assert len(published) >= 3
    model = Path("model", "model.safetensors")
    for final in ("final-before", "final"):  # neither saving nor resuming from the midst changed a bit
        assert (beside / final / model).read_bytes() == (whole / "final" / model).read_bytes()
    resumed = told(trained, f"{name}-beside")
    assert resumed["phases"][:3] == ["start", "restore", "train"]
    assert resumed["losses"].items() <= told(trained, f"{name}-whole")["losses"].items()


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
