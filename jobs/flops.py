"""The floating-point operations that a model's training takes by token, from its size and shape.
In: a model that transformers built, and the sequence length. Out: parameters and FLOPs, None but for dense decoders.
jobs.train puts them into the metrics; the report makes FLOP per joule of them.

    training a token:  6 N + 12 L H Q T     a forward pass alone:  2 N + 4 L H Q T

with N the parameters that multiply, L layers of H heads of size Q, and T tokens of context: PaLM (Chowdhery et al.
2022, arXiv:2204.02311), appendix B; 6 N as in Kaplan et al. 2020 (arXiv:2001.08361), section 2.1. N leaves out tables
that are only looked up: embeddings of positions, and that of tokens unless the output layer shares it. Causal masks
save nothing here, and activations that are computed again count once: the figure is the model's, of no implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DENSE_DECODERS = frozenset({
    "bloom", "codegen", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "helium", "llama", "mistral", "mpt", "nemotron", "olmo",
    "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm",
    "starcoder2", "xglm",
})  # fmt: skip
"""`model_type`s of transformers whose every token passes every weight and attends in every layer."""


@dataclass(frozen=True)
class Size:
    """A model's parameters, and its FLOPs a token; None where the formula does not hold for it."""

    parameters: int
    train_flops_per_token: float | None
    forward_flops_per_token: float | None


def size_of(model: Any, length: int) -> Size:
    """The size of a model that trains on sequences of `length` tokens; call it before DeepSpeed cuts it up."""
    parameters = sum(each.numel() for each in model.parameters())
    attention = _attention(model.config, length)
    if attention is None:
        return Size(parameters, None, None)
    multiplying = parameters - _looked_up(model)
    return Size(parameters, 6.0 * multiplying + 12.0 * attention, 2.0 * multiplying + 4.0 * attention)


def metrics_of(model: Any, teacher: Any | None, length: int) -> dict[str, float]:
    """`parameters` of the model that trains, and `flops_per_token` where known, with a teacher's forward pass.

    Of a model that is frozen in part no formula is given, for its backward pass leaves something out.
    """
    own = size_of(model, length)
    found = {"parameters": float(own.parameters)}
    taught = 0.0 if teacher is None else size_of(teacher, length).forward_flops_per_token
    whole = all(each.requires_grad for each in model.parameters())
    if whole and own.train_flops_per_token is not None and taught is not None:
        found["flops_per_token"] = own.train_flops_per_token + taught
    return found


def _attention(config: Any, length: int) -> float | None:
    """L H Q T; None where the model is no dense decoder, or some of its layers attend to a shorter window."""
    heads = getattr(config, "num_attention_heads", None)
    layers, hidden = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if config.model_type not in DENSE_DECODERS or not (heads and layers and hidden):
        return None
    if _window(config) < length:
        return None
    size = getattr(config, "head_dim", None) or hidden / heads
    return float(layers * heads * size * length)


def _window(config: Any) -> float:
    """The shortest window that a layer attends to."""
    if not getattr(config, "use_sliding_window", True):
        return float("inf")
    window = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    return float(window) if isinstance(window, int) else float("inf")


def _looked_up(model: Any) -> int:
    """Weights of embeddings that no output layer shares."""
    from torch.nn import Embedding

    head = model.get_output_embeddings()
    shared = None if head is None else head.weight
    tables = {id(part.weight): part.weight for part in model.modules() if isinstance(part, Embedding)}
    return sum(table.numel() for table in tables.values() if table is not shared)
