"""Jobs that run are followed where the site asks for it, and a logger that fails keeps no other from its runs."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cluster.api import MeterRow
from jobs.spec import Unavailable
from orchestrator.loggers import Follower, followed
from orchestrator.site import Site, resolve_site
from orchestrator.store import Store, facts, jobs
from orchestrator.store.schema import Job, ProgressRow, Segment
from tests.unit.orchestrator.specs import tiny

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
)
SPEC = tiny()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def site_of(folder: Path, **loggers: str) -> Site:
    return resolve_site({"zones": {"DEMO": {"provider": "demo"}}, "loggers": loggers}, folder, "test")


def job(store: Store, name: str, began_s: float, ended_s: float | None = None) -> str:
    """A job that began so many seconds ago, and drew 10 W until it ended, or until now."""
    now = datetime.now(timezone.utc)
    start = now - timedelta(seconds=began_s)
    end = None if ended_s is None else now - timedelta(seconds=ended_s)
    with store.write() as session:
        found = jobs.submit(session, SPEC.model_copy(update={"name": name}), start)
        found.state, found.ended_at = ("running", None) if end is None else ("done", end)
        segment = f"{found.id}-1"
        session.add(
            Segment(
                id=segment, job_id=found.id, n=1, zone="DEMO", workers=1, gpus=0, reason="start", run_until=now,
                ends_as="expired", ordered_at=start, ended_at=end, ended="done" if end else None, start_step=0,
                step=4, trained_steps=4, trained_s=began_s, parts_s={},
            )
        )  # fmt: skip
        length_s = ((end or now) - start).total_seconds()
        row = MeterRow(
            "boot", name, 1, "n", start, end or now, 10 * length_s, "estimated", "train", found.id, segment, 0
        )
        facts.add_rows(session, [row])
        session.add(ProgressRow(job_id=found.id, at=start + timedelta(seconds=length_s / 2), step=2, loss=3.5))
        return found.id


def scalars(folder: Path, job_id: str) -> dict[str, list[float]]:
    found = accumulator.EventAccumulator(str(folder / job_id))
    found.Reload()
    return {tag: [event.value for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_jobs_that_run_or_have_just_ended_are_written_and_older_ones_left(tmp_path: Path, store: Store) -> None:
    runs, ended, old = job(store, "runs", 600), job(store, "ended", 900, 60), job(store, "old", 9000, 8000)
    cancelled = job(store, "cancelled", 9000, 8000)
    with store.write() as session:
        found = session.get_one(Job, cancelled)
        found.state, found.ended_at = "cancelled", datetime.now(timezone.utc)
    follower = Follower(store, site_of(tmp_path, tensorboard="runs"))
    follower.once()
    follower.once()
    follower.close()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {runs, ended, cancelled}
    assert not any(tag.startswith("report/") for tag in scalars(tmp_path / "runs", runs))
    series = scalars(tmp_path / "runs", ended)
    assert series["loss"] == [3.5]
    assert series["energy_j"][-1] == pytest.approx(8400) and series["report/energy_j"] == [pytest.approx(8400)]
    assert series["power_w"][2:-2] == pytest.approx([10.0] * len(series["power_w"][2:-2]))
    follower.once([old])
    assert scalars(tmp_path / "runs", old)["report/energy_j"] == [pytest.approx(10_000)]
    follower.close()


def test_a_command_that_ends_writes_what_has_ended_meanwhile(tmp_path: Path, store: Store) -> None:
    site = site_of(tmp_path, tensorboard="runs")
    with followed(store, site):
        job_id = job(store, "runs", 600)
        with store.write() as session:
            found, segment = session.get_one(Job, job_id), session.get_one(Segment, f"{job_id}-1")
            found.state, found.ended_at, segment.ended, segment.ended_at = (
                "done",
                found.submitted_at,
                "done",
                segment.ordered_at,
            )
            found.ended_at = segment.ended_at = datetime.now(timezone.utc)
    assert scalars(tmp_path / "runs", job_id)["report/energy_j"] == [pytest.approx(6000, rel=0.02)]


@pytest.mark.filterwarnings("ignore")  # of mlflow's own imports and queries
def test_a_logger_that_fails_says_so_and_the_others_go_on(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    (tmp_path / "runs").write_text("no folder")
    job_id = job(store, "ended", 900, 60)
    follower = Follower(store, site_of(tmp_path, tensorboard="runs", mlflow=f"sqlite:///{tmp_path / 'mlflow.db'}"))
    with caplog.at_level(logging.WARNING, "orchestrator.loggers.follow"):
        follower.once()
    assert "tensorboard: " in caplog.text and "cannot be written" in caplog.text
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert [name for (name,) in database.execute("select name from runs")] == ["ended"]
        tags = dict(database.execute("select key, value from tags"))
    database.close()
    assert tags["lowtide.job"] == job_id


def test_a_site_that_names_no_logger_follows_nothing(tmp_path: Path, store: Store) -> None:
    job(store, "runs", 600)
    with followed(store, site_of(tmp_path)):
        pass
    assert {path.suffix for path in tmp_path.iterdir()} <= {".db", ".db-wal", ".db-shm"}


def test_a_missing_library_is_told_before_anything_runs(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "orchestrator.loggers.wandb", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Unavailable, match="wandb"):
        Follower(store, site_of(tmp_path, wandb="carbon"))
