"""Losses over tokens: summed, chunked for memory, and divided by a count that no worker count changes.
In: logits [batch, length, vocabulary] and labels [batch, length]. Out: a sum over the valid tokens.
jobs.engine turns the mean of it into gradients; jobs.distill adds the teacher's part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORED = -100
"""A label that does not count, as in torch and transformers."""
CHUNK_ELEMENTS = 1 << 24
"""Logits handled at once: 64 MiB in float32, whatever the vocabulary."""

Objective = Callable[[Any, Tensor, Tensor], Tensor]
"""(model, inputs, labels) to the loss summed over the valid tokens, a float32 scalar."""


def next_token(model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the next token in nats, summed over the valid tokens."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return cross_entropy(logits, labels)


def cross_entropy(logits: Tensor, labels: Tensor, chunk: int | None = None) -> Tensor:
    """Cross-entropy in nats summed over the labels that are not IGNORED, computed in float32."""
    return over_chunks(_cross_entropy, chunk, logits.flatten(0, -2), labels.flatten())


def over_chunks(part: Callable[..., Tensor], chunk: int | None, *tensors: Tensor) -> Tensor:
    """The sum of `part` over chunks of rows of all tensors; `chunk` rows, or as many as CHUNK_ELEMENTS allows.

    Each chunk is computed again in the backward pass, so that only one chunk's float32 copies exist at a time.
    """
    rows, width = tensors[0].shape
    chunk = chunk or max(1, CHUNK_ELEMENTS // width)
    if rows <= chunk:
        return part(*tensors)
    total = torch.zeros((), dtype=torch.float32, device=tensors[0].device)
    for pieces in zip(*(torch.split(tensor, chunk) for tensor in tensors), strict=True):
        total = total + checkpoint(part, *pieces, use_reentrant=False, preserve_rng_state=False)
    return total


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
