"""A user's own script through the whole product: paused, resumed, metered by worker; its folder, `env` and secrets.
In: `lowtide serve` on an embedded Ray that never saw the secret; scripts in a folder with a `jobs` of its own.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cluster.api import find_local, start_local
from cluster.meter.estimate import CoreWatts
from cluster.ray_cluster import JobApi, RayCluster
from tests.integration.command import Lowtide
from tests.integration.conftest import Opening

pytestmark = pytest.mark.timeout(900)

STEPS = 600
SECRET = "a-secret-of-nobody-but-this-test"
TIDE = """
import hashlib, json, os, time
import lowtide
import torch
import torch.distributed as dist
from jobs import RATE  # the folder's own

dist.init_process_group("gloo")
rank = dist.get_rank()
found = lowtide.resume()
state = torch.load(os.path.join(found, "state.pt")) if found else torch.zeros(1, dtype=torch.float64)
for step in range(found.step if found else 0, STEPS):
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    share = torch.tensor([float(step + rank)], dtype=torch.float64)
    dist.all_reduce(share)
    state = state * RATE + share
    if lowtide.due(step + 1, STEPS, loss=state, samples=2 * (step + 1)):
        with lowtide.save() as folder:
            if rank == 0:
                torch.save(state, os.path.join(folder, "state.pt"))
if rank == 0:
    told = {
        "state": state.item(),
        "greeting": os.environ["GREETING"],
        "secret": hashlib.sha256(os.environ["TIDE_TOKEN"].encode()).hexdigest(),
        "cpu_s": time.process_time(),
    }
    with open(os.path.join(lowtide.output(), "told.json"), "w") as out:
        json.dump(told, out)
dist.barrier()
os._exit(0)  # gloo's threads abort a Python that ends, now and then
"""
WRONG = "import lowtide\nraise ValueError('the data is empty')\n"
BLIND = "import os, time\nprint('rank', os.environ['RANK'], 'is here')\ntime.sleep(5)\n"
"""It stays until Ray has taken its output over."""


@pytest.fixture(scope="module")
def site(lowtide_at: Opening) -> Lowtide:
    """A site whose Ray runs already, without the secret in its environment; each script in a folder of its own."""
    opened = lowtide_at(env={"TIDE_TOKEN": SECRET})
    start_local(str(opened.state), "DEMO", 6)
    for name in ("jobs", "cluster"):
        (opened.folder / "mine" / name).mkdir(parents=True)
        (opened.folder / "mine" / name / "__init__.py").write_text("RATE = 0.999\n")
    (opened.folder / "mine" / "train.py").write_text(TIDE.replace("STEPS", str(STEPS)))
    (opened.folder / "wrong.py").write_text(WRONG)
    (opened.folder / "blind.py").write_text(BLIND)
    return opened


def spec(site: Lowtide, name: str, **sections: object) -> Path:
    """A script job's file."""
    path = site.folder / f"{name}.yaml"
    document = {"name": name, "job": "script", "workers": {"count": 1, "gpus": 0}, "carbon": {"policy": "now"}}
    path.write_text(json.dumps({**document, **sections}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ran(site: Lowtide) -> Lowtide:
    """The site after one script was paused and resumed, one failed, one never asked, and one lacks its secret."""
    tide = spec(
        site,
        "tide",
        working_dir="mine",
        script={"entrypoint": "train.py"},
        workers={"count": 2, "gpus": 0},
        env={"GREETING": "hello"},
        secrets=["TIDE_TOKEN"],
    )
    with site.serving():
        site.run("submit", tide)
        (site.folder / "mine" / "train.py").write_text("raise SystemExit('an edit after the submission')\n")
        site.run("submit", spec(site, "wrong", script={"entrypoint": "python wrong.py"}))
        site.run("submit", spec(site, "lacks", script={"entrypoint": "wrong.py"}, secrets=["NOT_THERE"]))
        _, said = site.both(site.start("submit", spec(site, "blind", script={"entrypoint": "blind.py"})))
        assert "'blind.py' never imports lowtide, so it is checkpoint-blind" in said
        site.until(lambda: site.training("tide"), "tide")
        site.run("pause", "tide")
        site.until(lambda: site.job("tide").state == "paused")
        site.run("resume", "tide")
        for name, state in (("tide", "done"), ("wrong", "failed"), ("blind", "done"), ("lacks", "waiting")):
            site.until(lambda name=name, state=state: site.job(name).state == state)  # type: ignore[misc]
    return site


def told(site: Lowtide) -> dict[str, object]:
    document: dict[str, object] = json.loads((site.checkpoints("tide") / "final" / "told.json").read_text())
    return document


def test_a_script_that_was_paused_ends_as_the_undisturbed_one(ran: Lowtide) -> None:
    segments = ran.segments("tide")
    assert [(segment.reason, segment.ended) for segment in segments] == [("start", "paused"), ("resume", "done")]
    assert 0 < segments[0].step < segments[1].step == STEPS
    state = 0.0
    for step in range(STEPS):
        state = state * 0.999 + (2 * step + 1)
    assert told(ran)["state"] == state
    job = ran.job("tide")
    assert (job.step, job.steps, job.metrics["samples"], job.metrics["loss"]) == (STEPS, STEPS, 2.0 * STEPS, state)


def test_its_joules_are_those_of_its_workers(ran: Lowtide) -> None:
    report = ran.ask("report", "tide")
    by_rank = {worker["rank"]: worker["energy_j"] for worker in report["workers"]}
    assert sorted(by_rank) == [-1, 0, 1]
    assert min(by_rank.values()) > 0
    # The script computes in a process of its own: its last one alone used so much of a core.
    if all(worker["source"] == "estimated" for worker in report["workers"]):
        assert by_rank[0] >= 0.9 * CoreWatts.from_environment().busy_w_per_core * float(str(told(ran)["cpu_s"]))
    assert report["phases"]["train"] > 0 and report["phases"]["start"] > 0 and "restore" in report["phases"]


def test_its_environment_and_its_secret_reach_it_and_the_secret_nothing_else(ran: Lowtide) -> None:
    assert told(ran)["greeting"] == "hello"
    assert told(ran)["secret"] == hashlib.sha256(SECRET.encode()).hexdigest()
    with closing(sqlite3.connect(ran.state / "lowtide.db")) as store:
        dump = "\n".join(store.iterdump())
    assert "TIDE_TOKEN" in dump and SECRET not in dump
    assert SECRET not in ran.run("logs", "tide")
    address = find_local(str(ran.state))
    assert address is not None
    with closing(RayCluster(address)) as cluster:
        shown = str(JobApi(cluster.dashboard_url).list_jobs())
    assert "TIDE_TOKEN" in shown and SECRET not in shown
    left = [path for path in ran.state.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert left == []


def test_a_secret_that_is_missing_holds_the_start_and_is_named(ran: Lowtide) -> None:
    job = ran.job("lacks")
    assert job.reason == "waits for the secret NOT_THERE: it is not in the controller's environment; set it there"
    assert list(ran.segments("lacks")) == []


def test_a_script_that_fails_says_why(ran: Lowtide) -> None:
    job = ran.job("wrong")
    assert job.reason == "script: 'python wrong.py' failed on rank 0: exit code 1: ValueError: the data is empty"
    assert [segment.ended for segment in ran.segments("wrong")] == ["failed"]
    story = ran.run("logs", "wrong")
    assert 'File "' in story and "wrong.py" in story


def test_a_script_that_never_asks_runs_to_its_end(ran: Lowtide) -> None:
    assert [(segment.reason, segment.ended) for segment in ran.segments("blind")] == [("start", "done")]
    story = ran.run("logs", "blind")
    assert "checkpoint-blind" in story and "rank 0 is here" in story
