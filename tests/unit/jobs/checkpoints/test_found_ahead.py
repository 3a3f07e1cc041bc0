"""The checkpoint to resume from is brought and checked while Python imports and the ranks meet.
In: a shelf and an engine that wait for each other. Out: nothing.
tests/integration resumes for real.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jobs import engine, train
from jobs.checkpoints.shelf import Shelf
from jobs.place import Place
from jobs.spec import JobFault, JobSpec
from jobs.train import _begun

PATIENCE_S = 60.0


class Nobody:
    """A Watch that nobody is behind."""

    def phase(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...

    def stop_wanted(self) -> bool:
        return False

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None: ...


@pytest.fixture
def spec() -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "tiny",
            "job": "train",
            "model": {"config": {"model_type": "llama"}},
            "data": {"files": ["/data/*.txt"]},
            "training": {"steps": 10, "batch_size": 8},
            "workers": {"count": 2, "gpus": 0},
        }
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_looks_for_it_before_the_imports(
    rank: int, spec: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Event()

    def prepare(_place: Place) -> None:
        raise JobFault("found" if looks.wait(PATIENCE_S if rank == 0 else 0.2) else "not found")

    monkeypatch.setattr(Shelf, "find", lambda _self: looks.set())
    monkeypatch.setattr(engine, "prepare", prepare)
    with pytest.raises(JobFault, match="^found" if rank == 0 else "^not found"):
        train.run(spec, Place(rank, 2, rank, "cpu", tmp_path, None, "tiny-1"), Nobody())


def test_what_it_raises_is_raised_where_it_is_asked_for() -> None:
    def fails() -> None:
        raise JobFault("torn")

    with pytest.raises(JobFault, match="torn"):
        _begun(fails).result()
