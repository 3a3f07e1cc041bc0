"""The audit of samples, and by it: each comes exactly once an epoch whatever the series of widths and crashes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.audit import VARIABLE, audited, taken
from jobs.data import Samples, feed
from jobs.place import Place
from jobs.spec.job import Training

BATCH = 12
WIDTHS = (1, 2, 3, 4, 6, 12)


@pytest.fixture(scope="module", autouse=True)
def auditing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "1")
        yield


def run_segment(folder: Path, number: int, samples: Samples, training: Training, width: int, steps: range) -> None:
    """One segment: every rank takes its micro-batches of `steps`."""
    for rank in range(width):
        place = Place(rank, width, rank, "cpu", folder, None, f"job-{number}")
        batches = audited(feed(samples, training, rank, width), place)
        for step in steps:
            for micro in batches(step):
                assert len(micro.rows) == len(micro.samples)


segments = st.lists(
    st.tuples(st.sampled_from(WIDTHS), st.integers(1, 5), st.integers(0, 4)),
    min_size=1,
    max_size=6,
)
"""(width, steps that were saved, steps that were lost after them)"""


@settings(max_examples=40)
@given(series=segments, size=st.integers(1, 40), micro=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_each_sample_comes_once_an_epoch_over_any_series_of_widths_and_crashes(
    series: list[tuple[int, int, int]], size: int, micro: int, seed: int
) -> None:
    training = Training(steps=1, batch_size=BATCH, micro_batch_size=micro, seed=seed)
    samples = Samples(np.arange(size * 4 + 1, dtype=np.uint16), np.arange(size), 4)
    with tempfile.TemporaryDirectory() as name:
        folder, step = Path(name), 0
        for number, (width, saved, lost) in enumerate(series):
            run_segment(folder, number, samples, training, width, range(step, step + saved + lost))
            step += saved
        steps = taken(folder / "audit")
    order = [sample for number in range(step) for sample in steps[number]]
    assert len(order) == step * BATCH
    for start in range(0, len(order) - size + 1, size):
        assert sorted(order[start : start + size]) == list(range(size))
    rest = order[len(order) - len(order) % size :]
    assert len(set(rest)) == len(rest)


def test_a_step_that_was_lost_counts_as_it_was_taken_again(tmp_path: Path) -> None:
    training = Training(steps=1, batch_size=BATCH, micro_batch_size=2)
    samples = Samples(np.arange(401, dtype=np.uint16), np.arange(100), 4)
    run_segment(tmp_path, 1, samples, training, 2, range(0, 3))
    run_segment(tmp_path, 2, samples, training, 3, range(2, 4))
    steps = taken(tmp_path / "audit")
    assert list(steps) == [0, 1, 2, 3]
    assert [len(numbers) for numbers in steps.values()] == [BATCH] * 4


def test_no_one_asked_so_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    training = Training(steps=1, batch_size=BATCH, micro_batch_size=2)
    run_segment(tmp_path, 1, Samples(np.arange(41, dtype=np.uint16), np.arange(10), 4), training, 2, range(2))
    assert list(tmp_path.iterdir()) == []
