"""A segment's trainer starts none of Ray Train's actors that it has no use for.
In: an order. Out: nothing.
The names are Ray's: where it changes them these tests say so, and segments start a little later.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cluster import trainer
from cluster.order import VARIABLE
from tests.unit.cluster.test_order import order

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")
"""Of the callback that is left out."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trainer.Trainer:
    """The trainer of an order, on a cluster that tells of no nodes: no Ray runs here."""
    monkeypatch.setenv(VARIABLE, "{}")
    monkeypatch.setattr(trainer, "available_resources_per_node", dict)
    return trainer.trainer(replace(order(), checkpoints=str(tmp_path)))


def names(callbacks: list[Any]) -> set[str]:
    return {type(each).__name__ for each in callbacks}


def test_what_is_left_out_is_there_in_rays_own(made: trainer.Trainer) -> None:
    assert names(DataParallelTrainer._create_default_callbacks(made)) >= trainer._UNUSED


def test_all_else_stays(made: trainer.Trainer) -> None:
    assert names(made._create_default_callbacks()) == names(DataParallelTrainer._create_default_callbacks(made)) - (
        trainer._UNUSED
    )
    assert "BackendSetupCallback" in names(made._create_default_callbacks())
