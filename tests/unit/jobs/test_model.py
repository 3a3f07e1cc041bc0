"""The model: the same on every rank, fitted to the tokenizer, errors that name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.model import build
from jobs.spec import InputError, Model, Unavailable

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def built(config: dict[str, Any], vocab_size: int = 257, length: int = 64, seed: int = 0) -> Any:
    return build(Model(config=config), vocab_size, length, 256, seed)


def test_a_seed_gives_one_model_and_another_seed_another() -> None:
    first, same, other = (built(LLAMA, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_what_the_config_leaves_open_comes_from_the_tokenizer_and_the_data() -> None:
    config = built(LLAMA, vocab_size=300, length=4096).config
    assert (config.vocab_size, config.eos_token_id, config.max_position_embeddings) == (300, 256, 4096)
    assert built({**LLAMA, "vocab_size": 512}).config.vocab_size == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 200}, "model: its vocabulary of 200 is smaller than the tokenizer's 257"),
        ({"max_position_embeddings": 32}, "data.sequence_length: 64 is more than the 32 positions of model"),
        ({"model_type": "lama"}, "model.config: transformers refuses it"),
        ({"hidden_size": 15}, "model.config: transformers refuses it"),
        ({"num_hidden_layer": 2}, "num_hidden_layer: unknown to llama; did you mean 'num_hidden_layers'?"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        built({**LLAMA, **changes})
    assert message in str(caught.value)


def test_weights_come_back_from_a_folder(tmp_path: Path) -> None:
    saved = built(LLAMA, seed=5)
    saved.save_pretrained(tmp_path / "model")
    loaded = build(Model(path=str(tmp_path / "model")), 257, 64, 256, seed=0)
    assert all(torch.equal(saved.state_dict()[name], loaded.state_dict()[name]) for name in saved.state_dict())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="distill.teacher.path: .* cannot be loaded"):
        build(Model(path=str(tmp_path)), 257, 64, 256, 0, "distill.teacher")


def test_adapters_are_refused_for_now() -> None:
    with pytest.raises(InputError, match="model.lora: adapters are not supported yet"):
        build(Model.model_validate({"config": LLAMA, "lora": {"r": 8}}), 257, 64, 256, 0)


def test_a_folder_whose_server_is_gone_is_not_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_given: object, **_named: object) -> None:
        try:
            raise OSError(116, "Stale file handle")
        except OSError as fault:
            raise OSError("Unable to load weights") from fault  # as transformers does

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", gone)
    with pytest.raises(Unavailable, match="model.path: .* cannot be read .Unable to load weights"):
        build(Model(path=str(tmp_path)), 257, 64, 256, 0)
