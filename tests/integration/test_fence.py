"""A segment that was stalled wakes up beside the one that took over: it ends fenced, and nothing is changed by it.
In: a tiny real model on real ranks (gloo, DeepSpeed on CPUs); SIGSTOP is the node that was cut off for a while.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.checkpoints import checkpoint, fence
from tests.integration.ranks import differing, run_ranks, spec_of, start_ranks, told, write_corpus

WORKERS = 2
STEPS = 60
OFTEN = {"deepspeed": {"zero_optimization": {"stage": 1}}, "checkpoint": {"every": "1ms", "keep": 1}}
WAIT_S = 240.0


def content(folder: Path) -> dict[str, str]:
    """Every file of the folder but those that carry the first segment's number, with what is in it."""
    early = (fence.pointer_of(1), "step-", "audit")
    found = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in found}
    late = {name: path for name, path in named.items() if "-2" in name.partition("/")[0] or not name.startswith(early)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in late.items()}


def wait_for_a_checkpoint(folder: Path, ranks: list[subprocess.Popen[bytes]]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        with suppress(FileNotFoundError):
            if fence.named_in((folder / fence.pointer_of(1)).read_bytes()):
                return
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.01)
    pytest.fail("no checkpoint was published")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run; and one whose first segment is stalled, and wakes when the second has done all steps."""
    folder = tmp_path_factory.mktemp("fence")
    corpus = write_corpus(folder / "corpus.txt", lines=300)
    for name in ("whole", "pieces"):
        (folder / name).mkdir()
        (folder / name / "spec.json").write_text(json.dumps(spec_of(name, corpus, STEPS, **OFTEN)))
    run_ranks(folder, WORKERS, "whole:0")
    checkpoints = folder / "pieces" / "checkpoints"
    early = start_ranks(folder, WORKERS, "pieces:0:1")
    try:
        wait_for_a_checkpoint(checkpoints, early)
        for rank in early:
            rank.send_signal(signal.SIGSTOP)
        assert not (checkpoints / "final").exists(), "it was to be stalled half-way"
        run_ranks(folder, WORKERS, "pieces:0:2")
        (folder / "before.json").write_text(json.dumps(content(checkpoints)))
        for rank in early:
            rank.send_signal(signal.SIGCONT)
        assert [rank.wait(WAIT_S) for rank in early] == [0] * WORKERS
    finally:
        for rank in early:
            rank.kill()
            rank.wait()
    return folder


def test_every_rank_of_the_one_that_woke_ends_and_says_by_whom_it_is_fenced(trained: Path) -> None:
    for rank in range(WORKERS):
        document = told(trained, "pieces", rank, segment=1)
        assert document["error"].startswith("Fenced: fenced by segment 2 of the job, which has taken over ")
        assert 0 < document["step"] < STEPS


def test_the_one_that_took_over_went_on_from_what_the_first_had_published(trained: Path) -> None:
    for rank in range(WORKERS):
        document = told(trained, "pieces", rank, segment=2)
        assert document["error"] is None and document["outcome"]["done"]
        assert document["phases"][:3] == ["start", "restore", "train"]


def test_nothing_of_the_one_that_took_over_is_changed_and_the_weights_are_those_of_the_undisturbed_run(
    trained: Path,
) -> None:
    folder = trained / "pieces" / "checkpoints"
    before = json.loads((trained / "before.json").read_text())
    assert before and content(folder) == before
    newest = checkpoint.newest(folder)
    assert newest is not None and (newest.step, newest.segment) == (STEPS, 2)
    assert differing(trained / "whole" / "checkpoints", folder) == []
