"""Samples: which tokens every worker sees at every step, whatever the number of workers.
In: tokens, the spec's data and training sections. Out: samples by global number, each rank's share, the total of steps.
Next, the loop in jobs.train feeds them to the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jobs.spec import InputError
from jobs.spec.job import Data, Training
from jobs.tokens import Array, Tokens

Batch = NDArray[np.int64]
"""Samples in rows, [n, sequence_length + 1] token ids: inputs are all but the last column, labels all but the first."""


@dataclass(frozen=True)
class Micro:
    """What a worker takes at once."""

    first: int
    """Global number of the first sample: step x global batch + place in the batch, the same at every width."""
    samples: NDArray[np.int64]
    """Which samples of the training part these are."""
    rows: Batch


@dataclass(frozen=True)
class Samples:
    """Windows of `length` + 1 tokens that overlap by one, so that each token but the first is predicted once.

    What does not fill a window at the end is dropped. `numbers` are the windows that belong to this part.
    """

    array: Array
    numbers: NDArray[np.int64]
    length: int

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, indices: NDArray[np.int64]) -> Batch:
        """The samples at `indices` of this part, as rows."""
        starts = self.numbers[indices] * self.length
        return np.stack([self.array[start : start + self.length + 1].astype(np.int64) for start in starts])


def split(tokens: Tokens, data: Data) -> tuple[Samples, Samples]:
    """The training part and the holdout (`data.holdout` of all samples, at least one where it is not 0).

    Which samples are held out depends on their count alone: neither the seed nor the workers move it.
    """
    total = (len(tokens.array) - 1) // data.sequence_length
    held = max(1, round(total * data.holdout)) if data.holdout > 0 else 0
    if total - held < 1:
        raise InputError(
            f"data.sequence_length: {len(tokens.array)} tokens of text make {max(total, 0)} samples of "
            f"{data.sequence_length}, too few to train on; give more text or a shorter sequence_length"
        )
    order = permutation(0, 0, total)
    return (
        Samples(tokens.array, np.sort(order[held:]), data.sequence_length),
        Samples(tokens.array, np.sort(order[:held]), data.sequence_length),
    )


@dataclass(frozen=True)
class Corpus:
    """What a job trains on, the same on every rank. `digest` is of the tokens' content."""

    training: Samples
    holdout: Samples
    vocab_size: int
    end_id: int | None
    digest: str


def corpus(tokens: Tokens, data: Data) -> Corpus:
    """The samples of all tokens, split into training and holdout."""
    training, holdout = split(tokens, data)
    return Corpus(training, holdout, tokens.vocab_size, tokens.end_id, tokens.digest)


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order of `size` samples in an epoch. NumPy freezes RandomState's streams, so an upgrade keeps the order."""
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, epoch]
    return np.random.RandomState(words).permutation(size).astype(np.int64)


def share(start: int, batch_size: int, rank: int, world_size: int) -> range:
    """The global sample numbers of one rank in the global batch that begins at sample number `start`."""
    part = batch_size // world_size
    return range(start + rank * part, start + (rank + 1) * part)


def pick(numbers: range, seed: int, size: int) -> NDArray[np.int64]:
    """Which of `size` samples the global numbers stand for: sample k of epoch e is permutation(seed, e)[k]."""
    return np.array([permutation(seed, number // size, size)[number % size] for number in numbers], dtype=np.int64)


def micro_size(training: Training, world_size: int) -> int:
    """Samples that a worker takes at once: the largest divisor of its share that is at most `micro_batch_size`."""
    part = training.batch_size // world_size
    return max(size for size in range(1, min(part, training.micro_batch_size) + 1) if part % size == 0)


def feed(samples: Samples, training: Training, rank: int, world_size: int) -> Callable[[int], Iterator[Micro]]:
    """A function from a step's number (0 is the first) to this rank's micro-batches of it."""
    micro = micro_size(training, world_size)

    def batches(step: int) -> Iterator[Micro]:
        numbers = share(step * training.batch_size, training.batch_size, rank, world_size)
        picked = pick(numbers, training.seed, len(samples))
        for start in range(0, len(picked), micro):
            mine = picked[start : start + micro]
            yield Micro(numbers.start + start, mine, samples.take(mine))

    return batches


def holdout_batches(holdout: Samples, micro: int, rank: int, world_size: int) -> Iterator[tuple[Batch, int]]:
    """A rank's holdout samples in batches of `micro`, each with how many of them count; equally many on all ranks."""
    rounds = math.ceil(len(holdout) / (micro * world_size))
    for number in range(rounds):
        start = (number * world_size + rank) * micro
        indices = np.arange(start, start + micro, dtype=np.int64)
        valid = int(np.clip(len(holdout) - start, 0, micro))
        yield holdout.take(np.minimum(indices, len(holdout) - 1)), valid


def total_steps(training: Training, samples: int, length: int) -> int:
    """Steps until the length that the spec gives is reached: as given, or the least that cover the epochs or tokens."""
    if training.steps is not None:
        return training.steps
    if training.epochs is not None:
        return max(1, math.ceil(training.epochs * samples / training.batch_size))
    assert training.tokens is not None
    return max(1, math.ceil(training.tokens / (training.batch_size * length)))
