"""Segments on a real Ray: start, progress, pause, resume, expiry, loss and failure, through cluster.api alone.
In: an embedded Ray in a temporary state folder, and tiny CPU jobs. Out: nothing.
The orchestrator's tests build on what these hold.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cluster.api import Cluster, Desire, Gauge, SegmentOrder, SegmentView, connect, start_local, stop_local
from jobs.spec import JobSpec, StaleEpoch, Unavailable
from jobs.spec.code import pack
from orchestrator.cli import main
from orchestrator.controller.settle import settle
from orchestrator.store import Store
from orchestrator.store.jobs import submit
from orchestrator.store.schema import Segment

EVER = timedelta(hours=1)
Telling = Callable[[str, SegmentView], tuple[str, str, str]]
ONCE_TORCH_IS_THERE = """
import sys

class Once:
    def find_spec(self, name, path, target=None):
        if name == "deepspeed":
            sys.meta_path.remove(self)
            act()

sys.meta_path.insert(0, Once())
"""
FULL_GPU = (
    """
def act():
    import torch

    def embedding(*given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    torch.nn.functional.embedding = embedding
"""
    + ONCE_TORCH_IS_THERE
)
"""A user's sitecustomize: the model needs more than its GPU has."""
FULL_HOST = (
    """
import os

with open(os.environ["ITS_GROUP"] + "/cgroup.procs", "w") as group:
    group.write(str(os.getpid()))

def act():
    import torch

    held, usual = [], torch.nn.functional.embedding

    def embedding(*given, **named):
        held.append(bytearray(b"x") * (32 << 20))
        return usual(*given, **named)

    torch.nn.functional.embedding = embedding
"""
    + ONCE_TORCH_IS_THERE
)
"""Likewise: the worker lives in a control group, and each step needs more memory of it."""


@pytest.fixture(scope="module")
def ray_in_de(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    state = tmp_path_factory.mktemp("state")
    started_s = time.monotonic()
    address = start_local(str(state), "DE", 4)
    print(f"\nembedded Ray up after {time.monotonic() - started_s:.1f} s")
    yield connect(address)
    assert stop_local(str(state))


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., SegmentOrder]:
    text = tmp_path / "corpus.txt"
    text.write_text("the tide goes out and the tide comes in\n" * 400)

    def build(segment_id: str, steps: int = 6, for_s: float = 600, **changes: Any) -> SegmentOrder:
        spec = JobSpec.model_validate(
            {
                "name": "tiny",
                "job": "train",
                "model": {
                    "config": {
                        "model_type": "llama",
                        "hidden_size": 32,
                        "num_hidden_layers": 2,
                        "num_attention_heads": 2,
                        "num_key_value_heads": 2,
                        "intermediate_size": 64,
                    }
                },
                "data": {"files": [str(text)], "sequence_length": 32},
                "training": {"steps": steps, "batch_size": 4, "micro_batch_size": 2},
                "deepspeed": {"zero_optimization": {"stage": 1}},
                "workers": {"count": 2, "gpus": 0, "cpus": 1},
                "checkpoint": {"every": "1h"},
            }
        )
        until = datetime.now(timezone.utc) + timedelta(seconds=for_s)
        known = SegmentOrder(
            segment_id=segment_id,
            job_id="tiny",
            reason="start",
            zone="DE",
            workers=2,
            spec=spec,
            desire=Desire(until, "expired", 1),
            slot_s=60.0,
            checkpoints=str(tmp_path / "checkpoints"),
            restore_from=None,
            spool=str(tmp_path / "spool"),
            threads=1,
        )
        return replace(known, **changes)

    return build


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that holds a segment's workers, and not much more."""
    folder = Path(f"/sys/fs/cgroup/memory/lowtide-segment-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(3 << 30))
    except OSError as fault:
        pytest.skip(f"no control group can be made here: {fault}")
    yield folder
    for pid in (folder / "cgroup.procs").read_text().split():
        (folder.parent / "cgroup.procs").write_text(pid)
    folder.rmdir()


@pytest.fixture
def tell(
    ray_in_de: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Telling:
    """From a job's name and the view of its segment to what `status` and `logs` say once a pass has settled it."""

    def lowtide(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lowtide", "--site", str(tmp_path / "lowtide.yaml"), *arguments])
        capsys.readouterr()
        with suppress(SystemExit):
            main()
        return capsys.readouterr().out

    def told(name: str, view: SegmentView) -> tuple[str, str, str]:
        address = ray_in_de.address  # type: ignore[attr-defined]
        (tmp_path / "lowtide.yaml").write_text(f"ray: {address}\nzones: {{DE: {{provider: demo}}}}\n")
        now = datetime.now(timezone.utc)
        spec = JobSpec.model_validate({"name": name, "job": "script", "script": {"entrypoint": "true"}})
        lowtide("status")
        with closing(Store(f"sqlite:///{tmp_path / 'state' / 'lowtide.db'}")) as store, store.write() as session:
            job = submit(session, spec, now)
            order = {"reason": "start", "run_until": now, "ends_as": "paused", "ordered_at": now}
            where = {"zone": "DE", "workers": 2, "gpus": 0, "start_step": 0, "step": 0}
            session.add(Segment(id=view.segment_id, job_id=job.id, n=1, **order, **where))
            session.flush()
            settle(session, {view.segment_id: view}, now)
        (shown,) = json.loads(lowtide("status", name, "--json"))
        return shown["state"], shown["reason"], lowtide("logs", name)

    return told


def watch(
    cluster: Cluster, segment_id: str, until: Callable[[SegmentView], bool], within_s: float = 240
) -> SegmentView:
    """The first view of the segment for which `until` holds."""
    deadline_s = time.monotonic() + within_s
    while True:
        view = cluster.observe([segment_id])[segment_id]
        if until(view):
            return view
        if view.status in ("ended", "lost") or time.monotonic() > deadline_s:
            raise AssertionError(f"{view}\n{''.join(cluster.logs(segment_id))}")
        time.sleep(0.3)


def ended(view: SegmentView) -> bool:
    return view.status == "ended"


def test_shows_its_node_in_the_zone(ray_in_de: Cluster) -> None:
    (node,) = ray_in_de.nodes()
    assert (node.zone, node.cpus, node.gpus) == ("DE", 4.0, 0.0)


def test_pauses_at_a_step_boundary_and_the_next_segment_ends_the_job(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder]
) -> None:
    first = order("tiny-1", steps=2000)
    ray_in_de.start(first)
    ray_in_de.start(first)  # changes nothing
    view = watch(ray_in_de, "tiny-1", lambda view: view.progress is not None and view.progress.step > 2)
    assert view.status == "running" and view.progress is not None and view.progress.steps == 2000
    now = datetime.now(timezone.utc)
    asked_s = time.monotonic()
    ray_in_de.desire("tiny-1", Desire(now, "paused", 1))
    result = watch(ray_in_de, "tiny-1", ended).result
    rows = ray_in_de.collect(first.spool)
    print(f"\nfrom stop to ended: {time.monotonic() - asked_s:.1f} s")
    assert result is not None and result.ended == "paused"
    print("start:", json.dumps(dict(result.parts_s)))
    assert 2 < result.step < 2000 and result.checkpoint_bytes > 0
    assert (Path(first.checkpoints) / "segments" / "tiny-1.json").is_file()

    mine = [row for row in rows if row.segment_id == "tiny-1"]
    assert {row.rank for row in mine} == {-1, 0, 1}
    assert {"start", "train", "checkpoint"} <= {row.phase for row in mine}
    ray_in_de.acknowledge(first.spool, rows)

    second = order("tiny-2", steps=result.step + 5, reason="resume")
    ray_in_de.start(second)
    after = watch(ray_in_de, "tiny-2", ended).result
    assert after is not None and after.ended == "done", after
    print("resume:", json.dumps(dict(after.parts_s)))
    assert after.step == after.steps == result.step + 5
    assert "tiny-2 ended as done" in "".join(ray_in_de.logs("tiny-2"))
    assert "tiny-2 ended as done" in "".join(ray_in_de.logs("tiny-2", follow=True))


def test_ends_by_itself_when_run_until_comes_unrenewed(ray_in_de: Cluster, order: Callable[..., SegmentOrder]) -> None:
    ray_in_de.start(order("lone-1", steps=100000))
    watch(ray_in_de, "lone-1", lambda view: view.progress is not None and view.progress.step > 0)
    ray_in_de.desire("lone-1", Desire(datetime.now(timezone.utc) + timedelta(seconds=3), "expired", 1))
    result = watch(ray_in_de, "lone-1", ended).result
    assert result is not None and result.ended == "expired" and result.checkpoint_bytes > 0


def test_fails_with_the_workers_traceback_when_the_job_is_at_fault(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tmp_path: Path
) -> None:
    wrong = order("wrong-1")
    (tmp_path / "corpus.txt").unlink()
    ray_in_de.start(wrong)
    result = watch(ray_in_de, "wrong-1", ended).result
    assert result is not None and result.ended == "failed"
    assert result.error is not None and "Traceback" in result.error and "corpus.txt" in result.error


def test_a_loss_that_is_not_finite_is_what_status_and_logs_tell(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tell: Telling
) -> None:
    wild = order("wild-1", steps=60)
    assert wild.spec.training is not None
    training = wild.spec.training.model_copy(update={"learning_rate": 1e15})
    ray_in_de.start(replace(wild, spec=wild.spec.model_copy(update={"training": training})))
    view = watch(ray_in_de, "wild-1", ended)
    assert view.result is not None and view.result.ended == "failed", view.result
    state, reason, logs = tell("wild", view)
    assert state == "failed" and re.search(
        r"JobFault: step \d+: the loss is not finite; lower training.learning", reason
    )
    assert "Traceback" in logs and reason in logs


def test_memory_that_runs_out_on_a_gpu_is_what_status_and_logs_tell(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tmp_path: Path, tell: Telling
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text(FULL_GPU)
    known = order("full-1")
    ray_in_de.start(replace(known, spec=known.spec.model_copy(update={"env": {"PYTHONPATH": str(tmp_path / "mine")}})))
    view = watch(ray_in_de, "full-1", ended)
    assert view.result is not None and view.result.ended == "failed", view.result
    state, reason, logs = tell("full", view)
    assert (state, reason) == ("failed", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "Traceback" in logs and "in forward" in logs and reason in logs


def test_a_worker_that_the_kernel_kills_for_memory_has_failed(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tmp_path: Path, tell: Telling, group: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text(FULL_HOST)
    known = order("eats-1", steps=100000)
    env = {"PYTHONPATH": str(tmp_path / "mine"), "ITS_GROUP": str(group)}
    ray_in_de.start(replace(known, spec=known.spec.model_copy(update={"env": env})))
    view = watch(ray_in_de, "eats-1", ended)
    assert view.result is not None and view.result.ended == "failed", view.result
    state, reason, _ = tell("eats", view)
    told = r"rank \d: out of memory: the kernel has killed it"  # it may have killed both
    assert state == "failed" and re.fullmatch(f"{told}(; {told})?", reason)


def test_saves_and_pauses_when_ray_stops_the_job(ray_in_de: Cluster, order: Callable[..., SegmentOrder]) -> None:
    from cluster.ray_cluster import JobApi

    ray_in_de.start(order("stopped-1", steps=100000))
    watch(ray_in_de, "stopped-1", lambda view: view.progress is not None and view.progress.step > 0)
    JobApi(ray_in_de.dashboard_url).stop_job("stopped-1")
    result = watch(ray_in_de, "stopped-1", ended).result
    assert result is not None and result.ended == "paused" and result.checkpoint_bytes > 0


def test_loses_a_segment_that_is_killed_and_gives_its_workers_back(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder]
) -> None:
    ray_in_de.start(order("killed-1", steps=100000))
    watch(ray_in_de, "killed-1", lambda view: view.progress is not None and view.progress.step > 0)
    ray_in_de.kill("killed-1")
    result = watch(ray_in_de, "killed-1", ended).result
    assert result is not None and result.ended == "lost" and result.step > 0
    deadline_s = time.monotonic() + 60
    while ray_in_de.nodes()[0].free_cpus < 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.3)


def test_trains_where_the_users_folder_has_a_cluster_and_a_jobs_of_its_own(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tmp_path: Path
) -> None:
    for name in ("cluster", "jobs"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "__init__.py").write_text("raise RuntimeError('the user's own')\n")
    known = order("mine-1")
    code = pack(tmp_path / "mine", tmp_path / "code")
    ray_in_de.start(replace(known, spec=known.spec.model_copy(update={"working_dir": str(code)})))
    result = watch(ray_in_de, "mine-1", ended).result
    assert result is not None and result.ended == "done", result


def test_refuses_to_train_with_a_shadow_of_its_own_modules(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tmp_path: Path
) -> None:
    (tmp_path / "mine" / "jobs").mkdir(parents=True)
    (tmp_path / "mine" / "jobs" / "__init__.py").touch()
    known = order("shadow-1")
    ray_in_de.start(replace(known, spec=known.spec.model_copy(update={"env": {"PYTHONPATH": str(tmp_path / "mine")}})))
    result = watch(ray_in_de, "shadow-1", ended).result
    assert result is not None and result.ended == "failed"
    assert result.error is not None and "take it off PYTHONPATH" in result.error, result.error


def test_refuses_a_controller_whose_lease_has_passed(ray_in_de: Cluster, order: Callable[..., SegmentOrder]) -> None:
    until = datetime.now(timezone.utc) + EVER
    ray_in_de.desire("none-1", Desire(until, "paused", 7))
    with pytest.raises(StaleEpoch):
        ray_in_de.desire("none-1", Desire(until, "paused", 6))
    with pytest.raises(StaleEpoch):
        ray_in_de.start(order("stale-1"))
    assert ray_in_de.observe(["stale-1"])["stale-1"].status == "lost"


def test_knows_no_segment_that_was_never_started(ray_in_de: Cluster) -> None:
    assert ray_in_de.observe(["unknown-1"])["unknown-1"].status == "lost"


def test_takes_figures_for_the_dashboard(ray_in_de: Cluster) -> None:
    ray_in_de.publish([Gauge("lowtide_job_workers", 2.0, {"job": "tiny", "zone": "DE"})])


def test_says_in_one_line_that_no_ray_answers() -> None:
    with pytest.raises(Unavailable, match="127.0.0.1:1 does not answer"):
        connect("127.0.0.1:1")
