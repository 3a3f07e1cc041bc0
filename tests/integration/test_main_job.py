"""The main job, by the command alone: pauses change no bit of the result, and a plan pauses for the grid by itself.
In: tiny jobs at ZeRO stage 1, 2 and 3 under `lowtide serve`; one under `lowtide run` on a grid of five-second slots.
The grid is the product's own server on loopback, asked by the Electricity Maps provider.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cluster.api import start_local
from orchestrator import grid
from orchestrator.controller.learn import learn
from orchestrator.replay import Replay, Trace
from tests.integration.command import Lowtide
from tests.integration.conftest import Opening
from tests.integration.ranks import differing, run_ranks, told

pytestmark = pytest.mark.timeout(1800)  # its fixtures take minutes where others use the machine, too

STEPS = {1: 500, 2: 400, 3: 200}
"""By ZeRO stage, at first; doubled where a machine takes them faster than a user pauses twice."""
PAUSES = 2
SLOT_S = 5
CLEAN_G, DIRTY_G = 20.0, 900.0
DIRTY_S = 30
TRAIN_S = 40.0
"""Seconds of training, at the measured speed, of the job that is planned: the grid turns while it trains."""
TRIES = 4
REPORT_KEYS = {
    *("job", "state", "step", "metrics", "segments", "workers", "phases", "energy_j", "unmetered_s", "pue"),
    *("emissions_g", "run_now_emissions_g", "saved_g", "saved_percent", "signal", "notes"),
}


def replay_of(*g_per_kwh: float) -> Replay:
    """A grid whose slots of SLOT_S have these values from now on, round and round."""
    trace = Trace(900.0, g_per_kwh, g_per_kwh, "a grid made for a test")
    return Replay.begin(trace, datetime.now(timezone.utc), speed=900 / SLOT_S)


def training(steps: int) -> dict[str, Any]:
    return {"steps": steps, "batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2, "warmup_steps": 3}


@pytest.fixture(scope="module")
def replays() -> dict[str, Replay]:
    """What the grid shows; a test may put another replay in its place."""
    return {"DE": replay_of(CLEAN_G, CLEAN_G)}


@pytest.fixture(scope="module")
def site(lowtide_at: Opening, replays: dict[str, Replay]) -> Iterator[Lowtide]:
    """A site on that grid, whose embedded Ray runs, so that no segment's start is measured with Ray's own."""
    with grid.start(replays) as server:
        opened = lowtide_at(
            slot=f"{SLOT_S}s",
            zones={"DE": {"provider": "electricity_maps", "pue": 1.2}},
            providers={"electricity_maps": {"base_url": server.url, "timeout": "5s"}},
        )
        start_local(str(opened.state), "DE")
        yield opened


# --- pauses change no bit ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(site: Lowtide) -> dict[int, str]:
    """Of each stage the job that a user paused twice."""
    with site.serving():
        return {stage: in_pieces(site, stage) for stage in STEPS}


def in_pieces(site: Lowtide, stage: int) -> str:
    """The name of a stage's job that is done, and was paused and resumed on the way."""
    for attempt in range(TRIES):
        steps, name = STEPS[stage] * 2**attempt, f"pieces-{stage}-{attempt}"
        deepspeed = {"zero_optimization": {"stage": stage}}
        site.run("submit", site.spec(name, training=training(steps), deepspeed=deepspeed))
        if all(paused(site, name) for _ in range(PAUSES)):
            break
    site.until(lambda: site.job(name).state == "done", name)
    return name


@pytest.fixture(scope="module")
def undisturbed(site: Lowtide, trained: dict[int, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same jobs from the first step to the last on bare ranks, a folder each, by the stage."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for stage, name in trained.items():
        (folder / str(stage)).mkdir()
        (folder / str(stage) / "spec.json").write_text(json.dumps(dict(site.job(name).spec)))
    run_ranks(folder, 2, *(f"{stage}:0" for stage in trained))
    return folder


def paused(site: Lowtide, name: str) -> bool:
    """Pause the job as soon as it trains, and resume it; False where it was done before the wish reached it."""
    site.until(lambda: site.training(name) or site.job(name).state == "done", name)
    if site.job(name).state != "done":
        site.end(site.start("pause", name), code=None)  # refused where it is done by now
        site.until(lambda: site.job(name).state in ("paused", "done"), name)
    if site.job(name).state == "done":
        return False
    site.run("resume", name)
    return True


@pytest.mark.parametrize("stage", STEPS)
def test_a_job_paused_twice_ends_bit_for_bit_as_the_undisturbed_one(
    site: Lowtide, trained: dict[int, str], undisturbed: Path, stage: int
) -> None:
    segments = site.segments(trained[stage])
    assert [segment.reason for segment in segments] == ["start", "resume", "resume"]
    assert [segment.ended for segment in segments] == ["paused", "paused", "done"]
    assert all(segment.step > segment.start_step for segment in segments)

    assert differing(undisturbed / str(stage) / "checkpoints", site.checkpoints(trained[stage])) == []
    assert site.job(trained[stage]).metrics == told(undisturbed, str(stage))["outcome"]["metrics"]


def test_each_segment_tells_its_own_joules(site: Lowtide, trained: dict[int, str]) -> None:
    report = site.ask("report", trained[2])
    assert [segment["reason"] for segment in report["segments"]] == ["start", "resume", "resume"]
    assert all(segment["energy_j"] > 0 and segment["end"] > segment["start"] for segment in report["segments"])
    assert report["phases"]["restore"] > 0
    status = {job["job"]: (job["state"], job["step"] == job["steps"]) for job in site.ask("status")}
    assert all(status[name] == ("done", True) for name in trained.values())


# --- the plan pauses -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned(site: Lowtide, replays: dict[str, Replay], trained: dict[int, str]) -> Lowtide:
    """The site after `lowtide run` has driven a job, measured before, whose grid turned dirty for a while."""
    with site.store.read() as session:
        learned = learn(session, site.job(trained[2]).likeness)
    steps = round(TRAIN_S * learned.points[2, None].steps_per_s)
    spec = site.spec("planned", training=training(steps), carbon={"policy": "optimal", "finish_by": "30m"})
    with site.running("run", spec) as run:
        site.until(lambda: site.segments("planned"))
        site.until(lambda: site.training("planned"), "planned")
        # What has passed stays clean, for the replay goes round and ends clean.
        replays["DE"] = replay_of(*[DIRTY_G] * (DIRTY_S // SLOT_S), *[CLEAN_G] * 300)
        site.end(run)
    return site


def test_the_plan_pauses_a_job_for_dirty_hours_and_resumes_it(planned: Lowtide) -> None:
    segments = planned.segments("planned")
    assert len(segments) >= 2
    assert [segment.reason for segment in segments] == ["start", *["resume"] * (len(segments) - 1)]
    assert [segment.ended for segment in segments] == [*["paused"] * (len(segments) - 1), "done"]
    assert all(segment.step > segment.start_step for segment in segments)


def test_its_report_keeps_the_contract_and_adds_up(planned: Lowtide) -> None:
    report = planned.ask("report", "planned")
    assert set(report) >= REPORT_KEYS
    assert set(report["emissions_g"]) >= {"operational", "embodied", "transfer", "total"}
    assert {"provider", "kind", "coverage_percent"} <= set(report["signal"])
    assert (report["state"], report["pue"]) == ("done", 1.2)
    assert report["metrics"]["samples"] == report["step"] * 8 and report["metrics"]["holdout_loss"] > 0
    for segment in report["segments"]:
        assert set(segment) == {"start", "end", "zone", "workers", "reason", "energy_j", "emissions_g"}
        assert (segment["zone"], segment["workers"]) == ("DE", 2)
    for worker in report["workers"]:
        assert set(worker) == {"rank", "node", "device", "uuid", "source", "energy_j"}
        assert worker["source"] == "estimated"
    assert sorted(worker["rank"] for worker in report["workers"]) == [-1, 0, 1]
    assert {"start", "restore", "train", "evaluate", "checkpoint"} <= set(report["phases"])

    metered_j = sum(row.energy_j or 0.0 for row in planned.rows("planned"))
    assert report["energy_j"] == pytest.approx(metered_j) and metered_j > 0
    assert sum(report["phases"].values()) == pytest.approx(metered_j)
    assert sum(segment["energy_j"] for segment in report["segments"]) == pytest.approx(metered_j)
    assert sum(worker["energy_j"] for worker in report["workers"]) == pytest.approx(metered_j)
    grams = report["emissions_g"]
    assert sum(segment["emissions_g"] for segment in report["segments"]) == pytest.approx(grams["operational"])


def test_it_is_charged_for_the_clean_hours_and_compared_with_run_now(planned: Lowtide) -> None:
    report = planned.ask("report", "planned")
    assert report["signal"]["provider"] == "electricity_maps" and report["signal"]["kind"] == "average"
    assert report["signal"]["coverage_percent"] == pytest.approx(100)
    assert isinstance(report["saved_percent"], float), report["notes"]
    assert report["saved_g"] == pytest.approx(report["run_now_emissions_g"] - report["emissions_g"]["total"])
    mean_g_per_kwh = report["emissions_g"]["operational"] / 1.2 / (report["energy_j"] / 3.6e6)
    assert CLEAN_G <= mean_g_per_kwh < (CLEAN_G + DIRTY_G) / 2
