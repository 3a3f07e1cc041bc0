"""Weights are saved once and made again of the masters, bit for bit; a checkpoint that holds both loads as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from jobs import engine as engines
from jobs.checkpoints import masters
from jobs.data import Micro
from jobs.engine import Engine
from jobs.group import Group
from jobs.model import build
from jobs.objective import next_token
from jobs.place import Place
from jobs.spec import JobFault, JobSpec

LENGTH = 16


@pytest.fixture(scope="module")
def deepspeed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """DeepSpeed on a lone rank's group."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        place = Place(0, 1, 0, "cpu", tmp_path_factory.mktemp("masters"), None, "job-1")
        prepared = engines.prepare(place)
        Group(place)
        yield prepared
        torch.use_deterministic_algorithms(False)
        dist.destroy_process_group()


def made(deepspeed: Any, section: dict[str, Any], seed: int) -> Engine:
    """An engine of a tiny GPT-2, whose output weights are its input weights."""
    document = {
        "name": "masters",
        "job": "train",
        "model": {"config": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}},
        "data": {"files": ["a"], "sequence_length": LENGTH},
        "training": {"steps": 9, "batch_size": 2, "micro_batch_size": 2},
        "deepspeed": section,
    }
    spec = JobSpec.model_validate(document)
    assert spec.model is not None
    place = Place(0, 1, 0, "cpu", Path("nowhere"), None, "job-1")
    return Engine(deepspeed, spec, place, build(spec.model, 64, LENGTH, 0, seed), next_token)


def step(engine: Engine, number: int) -> None:
    rows = np.random.default_rng(number).integers(0, 64, (2, LENGTH + 1), dtype=np.int64)
    engine.step(number, 9, [Micro(2 * number, np.arange(2), rows)])


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in engine._engine.module.named_parameters()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(
    "section",
    [
        {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}},
        {"zero_optimization": {"stage": 2}},
    ],
)
def test_an_engine_goes_on_from_masters_alone_and_from_both(
    deepspeed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], both: bool
) -> None:
    from deepspeed.utils import zero_to_fp32

    engine = made(deepspeed, section, seed=0)
    step(engine, 0)
    step(engine, 1)
    with monkeypatch.context() as patch:
        if both:
            patch.setattr(masters, "are_whole", lambda _engine: False)
        engine.save(tmp_path, "step-2", beside=not both)
        at_the_save = weights(engine)
        files = engine.finish_save(Event())
    saved = next(path for path in files if path.name.endswith("model_states.pt"))
    held = torch.load(saved, weights_only=False)["module"]
    assert bool(held) == both, "the weights are in the optimizer's file, tied ones, too"
    resumed = made(deepspeed, section, seed=1)
    assert not same(weights(resumed), at_the_save)
    resumed.load(tmp_path / "step-2")
    assert same(weights(resumed), at_the_save)
    exported = zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(str(tmp_path), "step-2")
    assert all(torch.equal(exported[name].to(value.dtype), value) for name, value in at_the_save.items())
    for each in (engine, resumed):
        step(each, 2)
    assert same(weights(engine), weights(resumed))
    assert not same(weights(resumed), at_the_save)


def test_masters_that_are_not_read_are_no_reason_to_leave_weights_out(deepspeed: Any) -> None:
    unread = {"zero_optimization": {"stage": 2, "load_from_fp32_weights": False}}
    assert not masters.are_whole(made(deepspeed, unread, 0)._engine)
    assert not masters.are_whole(made(deepspeed, {"zero_optimization": {"stage": 0}}, 0)._engine)


def test_what_no_shard_holds_stays_and_is_missed() -> None:
    state = {
        "module": {"a": torch.ones(1), "tied": torch.ones(1), "frozen": torch.ones(1), "buffer": torch.ones(1)},
        "param_shapes": [{"a": torch.Size([1])}],
        "shared_params": {"tied": "a"},
        "step": 3,
    }
    once = masters.held_once(state)
    assert (list(once["module"]), once["step"], len(state["module"])) == (["frozen", "buffer"], 3, 4)
    unsharded = {**state, "param_shapes": None}
    assert masters.held_once(unsharded) is unsharded

    class Fake:
        module = torch.nn.Linear(1, 1)

        def _get_zero_param_shapes(self) -> list[dict[str, torch.Size]]:
            return [{"weight": torch.Size([1, 1])}]

    lacking: list[str] = []
    masters.take(lacking, {}, Fake.module)
    assert lacking == ["weight", "bias"]
    with pytest.raises(JobFault, match="bias is not in it"):
        masters.give(Fake(), lacking, Path("step-2"))
    with pytest.raises(JobFault, match="holds another, which is no part of the model"):
        masters.take([], {"another": torch.ones(1)}, Fake.module)
