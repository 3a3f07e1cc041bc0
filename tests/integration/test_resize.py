"""A job that goes on at other widths trains as it would have at its own: the same samples, losses and end.
In: tiny real models on one, two and four real ranks (gloo, DeepSpeed on CPUs), dropout on, every sample audited.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.audit import taken
from jobs.checkpoints import checkpoint, universal
from jobs.spec import InputError, JobFault
from tests.integration.ranks import GPT2, LLAMA, run_ranks, spec_of, told, write_corpus

STEPS = 10
SERIES = ((2, 2), (1, 5), (4, 7), (2, 0))
"""Widths of the segments, and after how many steps each sees that it shall stop, so that it takes one more."""

CASES: dict[str, dict[str, Any]] = {
    "stage0": {"deepspeed": {"zero_optimization": {"stage": 0}}},
    "stage0-bf16": {"deepspeed": {"zero_optimization": {"stage": 0}, "bf16": {"enabled": True}}},
    "stage1": {"deepspeed": {"zero_optimization": {"stage": 1}}},
    "stage1-momentum": {
        "deepspeed": {
            "zero_optimization": {"stage": 1},
            "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
        }
    },
    "stage2": {
        # Sizes that no width divides, so that every shard is padded.
        "model": {"config": {**LLAMA, "intermediate_size": 61}},
        "deepspeed": {"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0},
    },
    "stage2-bf16": {
        "model": {"config": GPT2},
        "deepspeed": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
    },
    "stage3": {
        "model": {"config": {**LLAMA, "intermediate_size": 61}},
        "deepspeed": {"zero_optimization": {"stage": 3}, "gradient_clipping": 1.0},
    },
    "stage3-bf16": {"deepspeed": {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}}},
    "schedule": {
        "deepspeed": {
            "zero_optimization": {"stage": 1},
            "scheduler": {
                "type": "WarmupDecayLR",
                "params": {"warmup_num_steps": 4, "warmup_max_lr": 1e-2, "total_num_steps": 10},
            },
        }
    },
    "distill": {
        "job": "distill",
        "distill": {"teacher": {"config": {**LLAMA, "hidden_size": 48}}, "temperature": 2.0, "alpha": 0.9},
        "deepspeed": {"zero_optimization": {"stage": 2}},
    },
}
EXACT = [name for name in CASES if not name.endswith("bf16")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case once undisturbed at two workers, and once at two, one, four and two again."""
    folder = tmp_path_factory.mktemp("resize")
    corpus = write_corpus(folder / "corpus.txt", lines=24)
    for name, changes in CASES.items():
        for kind in ("whole", "series"):
            (folder / f"{name}-{kind}").mkdir()
            spec = spec_of(name, corpus, STEPS, **changes)
            (folder / f"{name}-{kind}" / "spec.json").write_text(json.dumps(spec))
    run_ranks(folder, 2, *(f"{name}-whole:0" for name in CASES))
    for workers, stop in SERIES:
        run_ranks(folder, workers, *(f"{name}-series:{stop}" for name in CASES))
        for name in CASES:
            (folder / f"{name}-series" / f"told-{stop}.json").write_text(json.dumps(told(folder, f"{name}-series")))
    return folder


def losses(folder: Path, name: str) -> dict[int, float]:
    """The losses of all segments of the series, by step."""
    pieces = [json.loads((folder / f"{name}-series" / f"told-{stop}.json").read_text()) for _, stop in SERIES]
    return {int(step): loss for piece in pieces for step, loss in piece["losses"].items()}


@pytest.mark.parametrize("name", CASES)
def test_losses_at_other_widths_are_those_of_the_undisturbed_job(trained: Path, name: str) -> None:
    whole = {int(step): loss for step, loss in told(trained, f"{name}-whole")["losses"].items()}
    within = 1e-5 if name in EXACT else 2e-2
    assert losses(trained, name) == pytest.approx(whole, abs=within, rel=0)
    assert whole[STEPS] < whole[1]


@pytest.mark.parametrize("name", CASES)
def test_the_model_ends_close_to_the_undisturbed_one(trained: Path, name: str) -> None:
    model = Path("checkpoints", "final", "model", "model.safetensors")
    whole, series = (load_file(trained / f"{name}-{kind}" / model) for kind in ("whole", "series"))
    assert whole.keys() == series.keys()
    for weight in whole:
        torch.testing.assert_close(series[weight], whole[weight], rtol=0, atol=1e-4 if name in EXACT else 2e-2)


@pytest.mark.parametrize("name", CASES)
def test_every_sample_comes_exactly_once_an_epoch_over_all_widths(trained: Path, name: str) -> None:
    whole, series = (taken(trained / f"{name}-{kind}" / "checkpoints" / "audit") for kind in ("whole", "series"))
    assert series == whole
    assert list(series) == list(range(STEPS))
    order = [sample for samples in series.values() for sample in samples]
    size = max(order) + 1
    epochs = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    assert len(epochs) >= 2
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)


@pytest.mark.parametrize("name", CASES)
def test_the_conversion_is_timed_and_its_folder_goes_with_the_next_checkpoint(trained: Path, name: str) -> None:
    pieces = [json.loads((trained / f"{name}-series" / f"told-{stop}.json").read_text()) for _, stop in SERIES]
    converts = [piece["outcome"]["parts_s"].get("convert") for piece in pieces]
    if name.startswith("stage0"):
        assert converts == [None] * 4  # every rank has the whole optimizer: there is nothing to convert
    else:
        assert converts[0] is None and all(duration_s > 0 for duration_s in converts[1:])
    assert not list((trained / f"{name}-series" / "checkpoints").glob("*.universal*"))
    assert [piece["step"] for piece in pieces] == [3, 6, 8, STEPS]


SHARDED = ["stage1", "stage1-momentum", "stage2", "stage2-bf16", "stage3", "stage3-bf16"]


@pytest.fixture
def found(trained: Path, tmp_path: Path, request: pytest.FixtureRequest) -> checkpoint.Published:
    """A copy of the last checkpoint of a case, written by two workers."""
    shutil.copytree(trained / f"{request.param}-whole" / "checkpoints", tmp_path / "checkpoints")
    newest = checkpoint.newest(tmp_path / "checkpoints")
    assert newest is not None
    return newest


def convert(found: checkpoint.Published, ranks: int = 3) -> Path:
    """The universal form as `ranks` ranks would make it."""
    assert not universal.prepare(found)
    sealed: dict[str, checkpoint.Sealed] = {}
    for rank in range(ranks):
        sealed |= universal.convert(found, rank, ranks)
    universal.publish(found, sealed)
    return universal.folder_of(found)


@pytest.mark.parametrize("found", [name for name in SHARDED if name != "stage1-momentum"], indirect=True)
def test_the_universal_form_is_that_of_deepspeeds_own_converter(found: checkpoint.Published, tmp_path: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    theirs = tmp_path / "theirs"
    asked = {"input_folder": str(found.folder), "output_folder": str(theirs), "num_extract_workers": 1}
    asked |= {"num_merge_workers": 1, "keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    ds_to_universal.main(SimpleNamespace(**asked))
    mine = convert(found)
    states, others = ({str(path.relative_to(side)) for path in side.glob("zero/*/*.pt")} for side in (mine, theirs))
    assert states <= others <= states | {"zero/lm_head.weight/fp32.pt"}  # a tied weight, which it writes twice
    for state in states:
        left, right = (torch.load(side / state, weights_only=False) for side in (theirs, mine))
        left, right = (side["param"] if isinstance(side, dict) else side for side in (left, right))
        assert torch.equal(left, right) and left.dtype == right.dtype, state


@pytest.mark.parametrize("found", SHARDED, indirect=True)
def test_a_universal_form_is_made_once_and_leaves_the_checkpoint_as_it_was(found: checkpoint.Published) -> None:
    made = convert(found)
    assert universal.prepare(found)  # whole: nothing to do
    assert checkpoint.newest(found.folder.parent) == found
    (made / "zero" / "optimizer_state.pt").write_bytes(b"torn")
    assert not universal.prepare(found)  # made again
    assert not made.exists()


@pytest.mark.parametrize("found", ["stage1", "stage3"], indirect=True)
def test_a_conversion_that_a_crash_cut_short_never_counts(found: checkpoint.Published) -> None:
    universal.prepare(found)
    universal.convert(found, 0, 2)  # rank 1 was killed
    checkpoint.clear(found.folder.parent)
    assert not list(found.folder.parent.glob("*.universal*"))
    assert not universal.prepare(found)


@pytest.mark.parametrize("found", ["stage1", "stage3"], indirect=True)
def test_shards_that_are_not_all_there_are_refused(found: checkpoint.Published) -> None:
    universal.prepare(found)
    next(found.folder.glob("*zero_pp_rank_1_mp_rank_00_optim_states.pt")).unlink()
    with pytest.raises(JobFault, match="1 shards lie there of 2 workers; restore the folder or remove it"):
        universal.convert(found)


@pytest.mark.parametrize("found", ["stage1", "stage3"], indirect=True)
def test_an_optimizer_that_cannot_change_its_width_is_named(found: checkpoint.Published) -> None:
    universal.prepare(found)
    for shard in found.folder.glob("*_optim_states.pt"):
        content = torch.load(shard, weights_only=False)
        inner = content["optimizer_state_dict"]
        base = inner["optimizer_state_dict" if "fp32_flat_groups" in inner else "base_optimizer_state"]
        base["state"][0]["factored"] = torch.ones(3)
        torch.save(content, shard)
    with pytest.raises(InputError, match=r"workers.count: the optimizer's 'factored' fits no other count of workers"):
        universal.convert(found)
