"""A job that `lowtide run` drives is followed by a logger, and its report tells where its training's joules went."""

from __future__ import annotations

from math import fsum
from typing import Any

import pytest

from tests.integration.command import Lowtide
from tests.integration.conftest import Opening

STEPS = 60


@pytest.fixture(scope="module")
def site(lowtide_at: Opening) -> Lowtide:
    opened = lowtide_at(loggers={"tensorboard": "runs"})
    opened.run("run", opened.spec("followed", training={"steps": STEPS, "batch_size": 8, "micro_batch_size": 1}))
    return opened


@pytest.fixture(scope="module")
def report(site: Lowtide) -> dict[str, Any]:
    document: dict[str, Any] = site.ask("report", "followed")
    return document


def test_the_joules_of_training_are_shared_out_by_part_of_a_step(report: dict[str, Any]) -> None:
    parts = dict(report["train_energy_j"])
    assert parts.pop("source") == "apportioned"
    assert parts["unknown"] == 0
    assert fsum(parts.values()) == pytest.approx(report["phases"]["train"])
    assert all(parts[part] > 0 for part in ("data", "forward", "backward", "optimizer", "communication"))
    assert fsum(report["phases"].values()) == pytest.approx(report["energy_j"])


def test_flops_by_joule_follow_from_the_model_and_the_meter(report: dict[str, Any]) -> None:
    flops_per_token = report["metrics"]["flops_per_token"]
    assert flops_per_token > 6 * 0.5 * report["metrics"]["parameters"]
    assert report["flop_per_j"] == pytest.approx(flops_per_token / report["per_token_j"])


def test_tensorboard_has_the_loss_and_the_joules_of_the_report(site: Lowtide, report: dict[str, Any]) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    found = reader.EventAccumulator(str(site.folder / "runs" / "followed"))
    found.Reload()
    series = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
    assert {"loss", "power_w", "energy_j", "emissions_g", "g_per_kwh"} <= series.keys()
    assert series["loss"][-1].step == STEPS
    assert series["loss"][-1].value == pytest.approx(report["metrics"]["loss"], rel=1e-5)
    assert series["report/energy_j"][-1].value == pytest.approx(report["energy_j"], rel=1e-3)
    assert series["emissions_g"][-1].value == pytest.approx(report["emissions_g"]["operational"], rel=1e-3)
