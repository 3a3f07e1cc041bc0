"""Two real ranks tell where their steps' time goes, whatever the ZeRO stage, and how large the model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.marks import STEP_PARTS
from tests.integration.ranks import LLAMA, run_ranks, spec_of, told

WORKERS, STEPS = 2, 40

CASES: dict[str, dict[str, Any]] = {
    "stage0": {"deepspeed": {"zero_optimization": {"stage": 0}}},
    "stage2": {"deepspeed": {"zero_optimization": {"stage": 2}}},
    "stage3": {"deepspeed": {"zero_optimization": {"stage": 3}}},
    "distill": {"job": "distill", "distill": {"teacher": {"config": {**LLAMA, "hidden_size": 48}}}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"line {n} of a corpus that repeats little: {n * n}\n" for n in range(300)))
    for name, changes in CASES.items():
        (folder / name).mkdir()
        (folder / name / "spec.json").write_text(json.dumps(spec_of(name, corpus, STEPS, **changes)))
    # All cases in one process: marks that one engine left behind would count twice in the next.
    run_ranks(folder, WORKERS, *(f"{name}:0" for name in CASES))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_the_parts_of_a_step_sum_to_the_seconds_trained(name: str, trained: Path) -> None:
    for rank in range(WORKERS):
        parts = told(trained, name, rank)["outcome"]["parts_s"]
        shares = [parts[f"step.{part}"] for part in STEP_PARTS]
        assert sum(shares) == pytest.approx(parts["train"], rel=1e-9)
        assert all(share_s > 0 for share_s in shares), "two ranks exchange gradients at every stage"


def test_the_ranks_tell_the_same_shares(trained: Path) -> None:
    mine, other = (told(trained, "stage2", rank)["outcome"]["parts_s"] for rank in range(WORKERS))
    for part in STEP_PARTS:
        assert mine[f"step.{part}"] / mine["train"] == pytest.approx(other[f"step.{part}"] / other["train"])


def test_the_model_is_counted_whole_also_where_it_is_cut_up(trained: Path) -> None:
    figures = {name: told(trained, name)["outcome"]["metrics"] for name in CASES}
    for metrics in figures.values():
        assert metrics["parameters"] == figures["stage0"]["parameters"] > 0
    assert figures["stage3"]["flops_per_token"] == figures["stage0"]["flops_per_token"] > 0
    assert figures["distill"]["flops_per_token"] > figures["stage2"]["flops_per_token"]
