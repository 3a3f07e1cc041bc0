"""Samples: an order that no worker count changes, each sample once an epoch, a holdout apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data import Samples, feed, holdout_batches, micro_size, pick, share, split, total_steps
from jobs.spec import InputError
from jobs.spec.job import Data, Training
from jobs.tokens import Tokens


def tokens_of(count: int) -> Tokens:
    return Tokens(np.arange(count, dtype=np.uint32), 1 << 20, None, "digest")


def data_of(length: int, holdout: float = 0.0) -> Data:
    return Data(files=["unused"], sequence_length=length, holdout=holdout)


@given(
    workers=st.sampled_from([1, 2, 3, 4, 6, 12]),
    size=st.integers(1, 50),
    step=st.integers(0, 30),
    micro=st.integers(1, 12),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_the_global_batch_is_the_same_at_every_width(workers: int, size: int, step: int, micro: int, seed: int) -> None:
    training = Training(steps=1, batch_size=12, micro_batch_size=micro, seed=seed)
    samples = Samples(np.arange(size * 4 + 1, dtype=np.uint16), np.arange(size), 4)

    def rows(width: int) -> list[list[int]]:
        batches = [batch for rank in range(width) for batch in feed(samples, training, rank, width)(step)]
        assert {len(batch.rows) for batch in batches} == {micro_size(training, width)}
        numbers = [number for batch in batches for number in range(batch.first, batch.first + len(batch.rows))]
        assert numbers == list(range(step * 12, step * 12 + 12))
        return [row.tolist() for batch in batches for row in batch.rows]

    assert rows(workers) == rows(1)


@given(size=st.integers(1, 200), epoch=st.integers(0, 5), seed=st.integers(0, 2**40))
def test_every_sample_comes_exactly_once_an_epoch(size: int, epoch: int, seed: int) -> None:
    assert sorted(pick(range(epoch * size, (epoch + 1) * size), seed, size)) == list(range(size))


@given(batch=st.sampled_from([4, 8, 24]), workers=st.sampled_from([1, 2, 4]), start=st.integers(0, 1000))
def test_the_ranks_shares_make_up_the_global_batch_in_order(batch: int, workers: int, start: int) -> None:
    shares = [number for rank in range(workers) for number in share(start, batch, rank, workers)]
    assert shares == list(range(start, start + batch))


def test_epochs_differ_in_order_and_seeds_do_too() -> None:
    first, second = pick(range(100), 0, 100).tolist(), pick(range(100, 200), 0, 100).tolist()
    assert first != second
    assert first != pick(range(100), 1, 100).tolist()


def test_the_order_is_frozen_for_checkpoints_of_other_versions() -> None:
    assert pick(range(8), 0, 8).tolist() == [2, 6, 0, 4, 1, 3, 5, 7]


@given(total=st.integers(3, 400), length=st.integers(2, 9), holdout=st.floats(0.0, 0.5))
def test_training_and_holdout_share_no_sample_and_lose_none(total: int, length: int, holdout: float) -> None:
    training, held = split(tokens_of(total * length + 1), data_of(length, holdout))
    assert sorted([*training.numbers, *held.numbers]) == list(range(total))
    assert len(held) > 0 or holdout == 0


def test_each_token_but_the_first_is_predicted_once() -> None:
    training, _ = split(tokens_of(21), data_of(5))
    labels = training.take(np.arange(len(training)))[:, 1:]
    assert sorted(labels.flatten().tolist()) == list(range(1, 21))


def test_too_little_text_is_refused_with_the_fix() -> None:
    with pytest.raises(InputError, match="too few to train on; give more text or a shorter sequence_length"):
        split(tokens_of(5), data_of(8))


@given(size=st.integers(1, 40), micro=st.integers(1, 5), workers=st.integers(1, 4))
def test_the_holdout_is_counted_once_over_all_ranks_in_equal_rounds(size: int, micro: int, workers: int) -> None:
    held = Samples(np.arange(size * 3 + 1, dtype=np.uint16), np.arange(size), 3)
    rounds = [list(holdout_batches(held, micro, rank, workers)) for rank in range(workers)]
    assert len({len(batches) for batches in rounds}) == 1
    counted = [row[0] for batches in rounds for batch, valid in batches for row in batch[:valid]]
    assert sorted(counted) == [3 * number for number in range(size)]


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"steps": 7}, 7), ({"epochs": 2}, 25), ({"epochs": 0.01}, 1), ({"tokens": 1000}, 8), ({"tokens": 1}, 1)],
)
def test_steps_cover_the_length_that_the_spec_gives(length: dict[str, float], steps: int) -> None:
    training = Training.model_validate({"batch_size": 8, **length})
    assert total_steps(training, samples=100, length=16) == steps


def test_the_micro_batch_is_the_largest_that_divides_the_share() -> None:
    assert micro_size(Training(steps=1, batch_size=24, micro_batch_size=8), world_size=2) == 6
    assert micro_size(Training(steps=1, batch_size=24, micro_batch_size=5), world_size=1) == 4


def test_a_sample_comes_from_its_place_in_the_memory_map(tmp_path: Path) -> None:
    np.arange(100, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    assert Samples(mapped, np.array([3]), 10).take(np.array([0])).tolist() == [list(range(30, 41))]
