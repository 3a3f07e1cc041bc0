"""A disk that is full while a checkpoint is written: training goes on, the checkpoint before stands, and it is said.
In: a tiny real model on two real ranks, its checkpoints on a file system of a few megabytes. Needs root to mount it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.checkpoints import checkpoint
from jobs.spec import Unavailable
from tests import disk
from tests.integration import test_script as scripts
from tests.integration.ranks import run_ranks, spec_of, told, write_corpus

STEPS = 8
OFTEN = {"deepspeed": {"zero_optimization": {"stage": 1}}, "checkpoint": {"every": "10ms", "keep": 1}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An undisturbed run, one with room for one checkpoint only, and one with not even that, each on two ranks."""
    folder = tmp_path_factory.mktemp("full")
    corpus = write_corpus(folder / "corpus.txt", lines=200)
    for name in ("whole", "one", "none"):
        (folder / name).mkdir()
        (folder / name / "spec.json").write_text(json.dumps(spec_of(name, corpus, STEPS, **OFTEN)))
    run_ranks(folder, 2, "whole:0")
    size_bytes = told(folder, "whole")["outcome"]["checkpoint_bytes"]
    mounted = []
    try:
        for name, room in (("one", 1.4), ("none", 0.6)):
            disk.mount(folder / name / "checkpoints", int(room * size_bytes) + (128 << 10))  # the tokens lie there, too
            mounted.append(folder / name / "checkpoints")
        run_ranks(folder, 2, "one:0", "none:0")
        yield folder
    except Unavailable as fault:
        pytest.skip(str(fault))
    finally:
        for path in mounted:
            disk.unmount(path)


def losses(document: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = document["losses"]
    return found


@pytest.mark.parametrize("name", ["one", "none"])
def test_training_goes_on_with_the_same_losses_and_ends_with_a_reason(trained: Path, name: str) -> None:
    whole = told(trained, "whole")
    for rank in range(2):
        document = told(trained, name, rank)
        assert losses(document) == losses(whole)
        assert document["error"].startswith(f"Unavailable: the checkpoint of step {STEPS} was not saved (")
        stands = "that of step 1 stands" if name == "one" else "there is none before it"
        assert document["error"].endswith(f"); {stands}")


def test_it_is_said_once_for_each_checkpoint_and_by_one_rank(trained: Path) -> None:
    notes = told(trained, "one")["notes"]
    assert notes and all("MB are free; make room" in note and "that of step 1 stands" in note for note in notes)
    assert all("No space left on device" in note or "takes no more" in note for note in told(trained, "none")["notes"])
    assert told(trained, "none")["notes"] and not told(trained, "none", rank=1)["notes"]


def test_the_checkpoint_before_stands_and_with_room_the_job_ends_as_if_nothing_had_been(trained: Path) -> None:
    folder = trained / "one" / "checkpoints"
    found = checkpoint.newest(folder)
    assert found is not None and found.step == 1
    assert not list(folder.glob("*.partial")), "what was begun would only fill the disk"
    disk.resize(folder, 64 << 20)
    run_ranks(trained, 2, "one:0")
    document = told(trained, "one")
    assert document["error"] is None and document["outcome"]["done"]
    model = Path("checkpoints", "final", "model", "model.safetensors")
    assert (trained / "one" / model).read_bytes() == (trained / "whole" / model).read_bytes()


@pytest.fixture(params=["plain", "torch"])
def hoard(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A script that saves a little at step 3 and much at step 5, on a small file system, paused at both."""
    home = tmp_path / "hoard"
    (home / "work").mkdir(parents=True)
    entrypoint = f"{scripts.SCRIPTS / 'hoard.py'} {request.param}"
    (home / "spec.json").write_text(json.dumps(scripts.spec_of("hoard", entrypoint, home / "work", asks=True)))
    try:
        disk.mount(home / "checkpoints", 1 << 20)
    except Unavailable as fault:
        pytest.skip(str(fault))
    yield tmp_path
    disk.unmount(home / "checkpoints")


def test_a_script_that_finds_the_disk_full_is_not_at_fault_and_goes_on_where_it_was_saved(hoard: Path) -> None:
    folder = hoard / "hoard" / "checkpoints"
    scripts.run_ranks(hoard, "hoard:2", "hoard:4")
    errors = [told(hoard, "hoard", rank)["error"] for rank in range(2)]
    assert errors[0].startswith("NoRoom: script: ") and errors[0].endswith("; make room; step 3 is saved")
    assert "connection closed by peer" in errors[1].lower(), "it lost a peer, which is nobody's fault"
    found = checkpoint.newest(folder)
    assert found is not None and found.step == 3
    assert not list(folder.glob("*.partial")), "what was begun would only fill the disk"
    disk.resize(folder, 64 << 20)
    scripts.run_ranks(hoard, "hoard:4", "hoard:0")
    assert told(hoard, "hoard")["outcome"]["done"] and told(hoard, "hoard")["phases"][:2] == ["start", "restore"]
