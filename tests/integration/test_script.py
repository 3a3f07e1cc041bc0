"""Scripts of a user's own, without Ray: paused and resumed they end as the undisturbed ones; what fails is said.
In: two bare ranks that run the worker's own code, a DeepSpeed script (the shipped example) and a Hugging Face one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import jobs
from tests.integration.test_resume_bitwise import differences, told

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path(str(jobs.__file__)).parent / "examples"
SCRIPTS = Path(__file__).parent / "scripts"
STEPS = 6
PAUSE_AT = 4
PAUSED = {
    "deepspeed": f"{EXAMPLES / 'train.py'} --steps {STEPS}",
    "trainer": f"{SCRIPTS / 'trainer.py'} --steps {STEPS}",
    "trainer-zero": f"{SCRIPTS / 'trainer.py'} --steps {STEPS} --zero 2",
}
SHORT = ("raise", "differ", "sleep", "blind")


def spec_of(name: str, entrypoint: str, folder: Path, asks: bool) -> dict[str, Any]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        "name": name,
        "job": "script",
        "script": {"entrypoint": entrypoint, "folder": str(folder), "asks": asks},
        "env": {"DS_ACCELERATOR": "cpu", "PATH": path},
        "workers": {"count": 2, "gpus": 0},
        "checkpoint": {"every": "1h"},
    }


def run_ranks(folder: Path, *scripts: str) -> None:
    """Run the jobs one after the other on two fresh ranks; each job is NAME:STOP as in script_rank.py."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        names = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
    ranks = []
    for rank in range(2):
        env = {name: str(value) for name, value in {**names, "RANK": rank, "LOCAL_RANK": rank}.items()}
        command = [sys.executable, "-m", "tests.integration.script_rank", str(folder), str(rank), "2", *scripts]
        with (folder / f"log-{rank}.txt").open("ab") as log:
            env = {**os.environ, **env, "OMP_NUM_THREADS": "1"}
            ranks.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
    codes = [rank.wait() for rank in ranks]
    if codes != [0, 0]:
        pytest.fail("\n".join((folder / f"log-{rank}.txt").read_text()[-4000:] for rank in range(2)))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every script's spec."""
    folder = tmp_path_factory.mktemp("scripts")
    jobs_of = {f"{name}-{kind}": entrypoint for name, entrypoint in PAUSED.items() for kind in ("whole", "pieces")}
    jobs_of |= {name: f"{SCRIPTS / 'quarrel.py'} {name}" for name in SHORT}
    for name, entrypoint in jobs_of.items():
        work = folder / name / "work"
        work.mkdir(parents=True)
        asks = name not in ("sleep", "blind")
        (folder / name / "spec.json").write_text(json.dumps(spec_of(name, entrypoint, work, asks)))
    return folder


@pytest.fixture(scope="module")
def ran(scripts: Path) -> Callable[[str], Path]:
    """Has a script run once undisturbed, and once paused after four steps and resumed."""
    done = set[str]()

    def run(name: str) -> Path:
        if name not in done:
            run_ranks(scripts, f"{name}-whole:0")
            for stop, outcome in ((PAUSE_AT - 1, (False, PAUSE_AT)), (0, (True, STEPS))):
                run_ranks(scripts, f"{name}-pieces:{stop}")
                ended = told(scripts, f"{name}-pieces")
                assert (ended.get("outcome", {}).get("done"), ended.get("outcome", {}).get("step")) == outcome, ended
            done.add(name)
        return scripts

    return run


def weights(folder: Path, name: str) -> Any:
    final = folder / name / "checkpoints" / "final"
    if name.startswith("deepspeed"):
        return torch.load(final / "model.pt", weights_only=True)
    from safetensors.torch import load_file

    return load_file(final / "model.safetensors")


@pytest.mark.parametrize("name", PAUSED)
def test_a_script_that_was_paused_ends_bit_for_bit_as_the_undisturbed_one(
    ran: Callable[[str], Path], name: str
) -> None:
    folder = ran(name)
    assert differences(weights(folder, f"{name}-whole"), weights(folder, f"{name}-pieces")) == []
    whole, pieces = told(folder, f"{name}-whole"), told(folder, f"{name}-pieces")
    assert whole["outcome"]["steps"] == pieces["outcome"]["steps"] == STEPS
    assert whole["phases"] == ["start", "train", "stop"]
    assert pieces["phases"] == ["start", "restore", "train", "stop"]
    assert pieces["outcome"]["metrics"] == whole["outcome"]["metrics"]
    assert whole["outcome"]["metrics"]["samples"] > 0 and whole["outcome"]["metrics"]["loss"] > 0
    assert {"build", "imports", "train"} <= set(whole["outcome"]["parts_s"])
    assert "restore" in pieces["outcome"]["parts_s"]
    assert pieces["outcome"]["checkpoint_bytes"] > 0 == whole["outcome"]["checkpoint_bytes"]


def test_the_trainer_keeps_none_of_the_checkpoints_that_it_was_asked_for(ran: Callable[[str], Path]) -> None:
    folder = ran("trainer")
    assert list((folder / "trainer-pieces" / "work" / "trainer-out").glob("checkpoint-*")) == []
    published = json.loads((folder / "trainer-pieces" / "checkpoints" / "published.json").read_text())["published"]
    assert published == [f"step-{PAUSE_AT:08d}"]


def test_the_trainer_saves_by_deepspeed_where_it_trains_by_it(ran: Callable[[str], Path]) -> None:
    published = ran("trainer-zero") / "trainer-zero-pieces" / "checkpoints" / f"step-{PAUSE_AT:08d}"
    assert len(list(published.glob(f"global_step{PAUSE_AT}/*_optim_states.pt"))) == 2


def test_what_fails_is_told_by_the_rank_that_failed_first(scripts: Path) -> None:
    run_ranks(scripts, "raise:0")
    assert told(scripts, "raise", 1)["error"].endswith("failed on rank 1: exit code 1: ValueError: the data is empty")
    assert told(scripts, "raise", 1)["error"].startswith("ScriptFault: script: ")
    assert told(scripts, "raise", 0)["error"].startswith("PeerFailed: ")
    assert "about to fail" in (scripts / "log-1.txt").read_text()


def test_ranks_that_ask_at_different_steps_are_refused(scripts: Path) -> None:
    run_ranks(scripts, "differ:0")
    for rank in range(2):
        assert told(scripts, "differ", rank)["error"] == (
            "JobFault: script: rank 0 asks whether a checkpoint is due after step 1 while rank 1 asks whether a "
            "checkpoint is due after step 2: every rank must ask lowtide the same after the same step"
        )


def test_a_script_that_never_asks_runs_to_its_end_or_is_ended_on_every_rank(scripts: Path) -> None:
    run_ranks(scripts, "blind:0", "sleep:-1")
    for rank in range(2):
        assert told(scripts, "blind", rank)["outcome"]["done"] is True
        assert told(scripts, "sleep", rank)["outcome"] | {"parts_s": None} == {
            "done": False,
            "step": 0,
            "steps": 0,
            "metrics": {},
            "parts_s": None,
            "checkpoint_bytes": 0,
            "moved_bytes": 0,
            "moved_from": None,
        }
        assert told(scripts, "sleep", rank)["phases"] == ["start", "train", "stop"]
        assert f"rank {rank} of 2 at 127.0.0.1" in (scripts / f"log-{rank}.txt").read_text()
