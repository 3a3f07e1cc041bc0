"""The model: fresh from a config with seeded weights, or existing weights by path or hub id.
In: the spec's model section and the tokenizer's vocabulary. Out: a torch module, the same on every rank.
Next, jobs.engine hands it to DeepSpeed.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch

from jobs.patience import is_outside
from jobs.spec import InputError, Model, Unavailable


def build(model: Model, vocab_size: int, length: int, end_id: int | None, seed: int, field: str = "model") -> Any:
    """A causal language model in float32 on the CPU.

    `vocab_size` and `length` fill what a config leaves open and must fit what it says; `field` names the section in
    errors. The weights follow from `seed` alone, so every rank and every start builds the same.
    """
    if model.lora is not None:
        raise InputError(f"{field}.lora: adapters are not supported yet; remove it to train all weights")
    torch.manual_seed(seed)
    network = (
        _pretrained(model.path, field) if model.path is not None else _fresh(model, vocab_size, length, end_id, field)
    )
    if network.config.vocab_size < vocab_size:
        raise InputError(
            f"{field}: its vocabulary of {network.config.vocab_size} is smaller than the tokenizer's {vocab_size}; "
            "take the tokenizer that belongs to the model"
        )
    positions = getattr(network.config, "max_position_embeddings", None)
    if positions is not None and positions < length:
        raise InputError(
            f"data.sequence_length: {length} is more than the {positions} positions of {field}; shorten it"
        )
    return network


def _fresh(model: Model, vocab_size: int, length: int, end_id: int | None, field: str) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    assert model.config is not None
    given = dict(model.config)
    kind = given.pop("model_type")
    given.setdefault("vocab_size", vocab_size)
    for name in ("bos_token_id", "eos_token_id"):  # the defaults are those of a tokenizer that is not this one
        given.setdefault(name, end_id)
    try:
        _spelt(given, AutoConfig.for_model(kind), field)
        config = AutoConfig.for_model(kind, **given)
        if "max_position_embeddings" not in given and getattr(config, "max_position_embeddings", length) < length:
            config.max_position_embeddings = length
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as fault:
        reason = " ".join(str(fault).split())
        raise InputError(f"{field}.config: transformers refuses it ({reason[:300]}); mend it") from None


def _spelt(given: dict[str, Any], default: Any, field: str) -> None:
    """Refuse a key that is nearly one of the config's: transformers would take it in silence and use the default."""
    known = {*default.to_dict(), *default.attribute_map}
    for key in given.keys() - known:
        if near := difflib.get_close_matches(key, known, n=1, cutoff=0.9):
            raise InputError(f"{field}.config.{key}: unknown to {default.model_type}; did you mean {near[0]!r}?")


def _pretrained(path: str, field: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as fault:
        reason = (str(fault).splitlines() or [""])[0]
        if is_outside(fault):
            raise Unavailable(f"{field}.path: {path!r} cannot be read ({reason[:300]})") from fault
        raise InputError(
            f"{field}.path: {path!r} cannot be loaded ({reason[:300]}); give a folder or a hub id"
        ) from None
