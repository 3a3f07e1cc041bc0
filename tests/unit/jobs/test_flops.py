"""Model FLOPs by token: by hand for small models, and none for what the formula does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from jobs.flops import metrics_of, size_of

LLAMA: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 100,
}  # fmt: skip
LAYER = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
"""Of that llama: q, k, v and o; gate, up and down; two norms."""


def model_of(kind: str, **config: Any) -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))


def test_a_llama_by_hand() -> None:
    size = size_of(model_of("llama", **LLAMA, tie_word_embeddings=False), length=16)
    multiplying = 2 * LAYER + 32 + 100 * 32  # the last norm, and the output layer
    assert size.parameters == multiplying + 100 * 32
    attention = 2 * 4 * 8 * 16  # L H Q T
    assert size.train_flops_per_token == 6 * multiplying + 12 * attention
    assert size.forward_flops_per_token == 2 * multiplying + 4 * attention


def test_an_embedding_that_the_output_layer_shares_multiplies() -> None:
    size = size_of(model_of("llama", **LLAMA, tie_word_embeddings=True), length=16)
    assert size.parameters == 2 * LAYER + 32 + 100 * 32
    assert size.train_flops_per_token == 6 * size.parameters + 12 * 2 * 4 * 8 * 16


def test_a_gpt2_leaves_out_its_table_of_positions() -> None:
    size = size_of(model_of("gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=64), length=64)
    assert size.train_flops_per_token == 6 * (size.parameters - 64 * 32) + 12 * 2 * 4 * 8 * 64


def test_heads_of_their_own_size_count_as_such() -> None:
    size = size_of(model_of("llama", **LLAMA, head_dim=16), length=10)
    plain = size_of(model_of("llama", **LLAMA), length=10)
    assert size.train_flops_per_token is not None and plain.train_flops_per_token is not None
    grown = size.parameters - plain.parameters
    assert size.train_flops_per_token - plain.train_flops_per_token == 6 * grown + 12 * 2 * 4 * 8 * 10


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("mixtral", {**LLAMA, "num_local_experts": 2, "num_key_value_heads": 4}),  # not every weight is passed
        ("mistral", {**LLAMA, "num_key_value_heads": 4, "sliding_window": 8}),  # layers do not see all of the context
        ("bert", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "is_decoder": True}),
    ],
)
def test_what_is_no_dense_decoder_has_no_figure(kind: str, config: dict[str, Any]) -> None:
    size = size_of(model_of(kind, **config), length=16)
    assert size.parameters > 0
    assert size.train_flops_per_token is None and size.forward_flops_per_token is None


def test_a_window_that_holds_the_whole_context_is_none() -> None:
    config = {**LLAMA, "num_key_value_heads": 4, "sliding_window": 16}
    assert size_of(model_of("mistral", **config), length=16).train_flops_per_token is not None


def test_a_teacher_adds_its_forward_pass() -> None:
    student, teacher = model_of("llama", **LLAMA), model_of("llama", **{**LLAMA, "num_hidden_layers": 4})
    teacher.requires_grad_(False)
    alone, taught = metrics_of(student, None, 16), metrics_of(student, teacher, 16)
    assert alone["parameters"] == taught["parameters"] == size_of(student, 16).parameters
    assert taught["flops_per_token"] - alone["flops_per_token"] == size_of(teacher, 16).forward_flops_per_token


def test_where_the_teacher_or_a_frozen_part_does_not_fit_no_figure_is_given() -> None:
    student = model_of("llama", **LLAMA)
    mixture = model_of("mixtral", **LLAMA, num_local_experts=2, num_key_value_heads=4)
    assert "flops_per_token" not in metrics_of(student, mixture, 16)
    student.get_input_embeddings().requires_grad_(False)
    assert "flops_per_token" not in metrics_of(student, None, 16)
