"""The loss of running jobs is kept by time: thinly while they run, and where each segment ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from cluster.api import Ended, Progress, SegmentResult, SegmentView
from orchestrator.accounting.account import LossAt
from orchestrator.store import Store, jobs, progress
from orchestrator.store.schema import Segment
from tests.unit.orchestrator.specs import tiny
from tests.unit.orchestrator.store.earlier import without_moves

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
SPEC = tiny()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A job that runs, and one beside it."""
    opened = Store(database)
    with opened.write() as session:
        for name in ("tiny", "other"):
            job = jobs.submit(session, SPEC.model_copy(update={"name": name}), T0)
            session.add(
                Segment(
                    id=f"{job.id}-1", job_id=job.id, n=1, zone="DE", workers=1, gpus=0, reason="start",
                    run_until=at(9e3), ends_as="expired", ordered_at=T0, start_step=0, step=0, parts_s={},
                )
            )  # fmt: skip
    yield opened
    opened.close()


def runs(seconds: float, step: int, loss: float | None) -> SegmentView:
    return SegmentView("s", "running", Progress(at(seconds), "train", step, 100, loss, step, seconds))


def ends(seconds: float, step: int, loss: float | None, ended: Ended = "done") -> SegmentView:
    metrics = {} if loss is None else {"loss": loss}
    return SegmentView("s", "ended", None, SegmentResult(at(seconds), ended, step, 100, metrics, {}, 0))


def kept(session: Session, job: str = "tiny") -> list[tuple[float, int, float]]:
    found: list[LossAt] = progress.points(session, job)
    return [((each.at - T0).total_seconds(), each.step, each.loss) for each in found]


def test_a_running_job_leaves_a_point_a_minute_and_one_at_its_end(store: Store) -> None:
    for second in range(0, 150, 10):
        with store.write() as session:
            progress.keep(session, {"tiny-1": runs(second, second, 9.0 - second / 100)}, every_s=60)
    with store.write() as session:
        progress.keep(session, {"tiny-1": ends(145, 145, 7.5)}, every_s=60)
        assert kept(session) == [(0, 0, 9.0), (60, 60, 8.4), (120, 120, 7.8), (145, 145, 7.5)]


def test_the_same_view_seen_twice_is_one_point(store: Store) -> None:
    for _ in range(2):
        for view in (runs(0, 1, 9.0), ends(5, 2, 8.0)):
            with store.write() as session:
                progress.keep(session, {"tiny-1": view}, every_s=60)
    with store.read() as session:
        assert kept(session) == [(0, 1, 9.0), (5, 2, 8.0)]


def test_what_tells_no_loss_or_was_not_saved_leaves_nothing(store: Store) -> None:
    views = (runs(0, 0, None), ends(5, 0, None), ends(6, 7, 3.0, "failed"), ends(7, 7, 3.0, "lost"))
    for view in (*views, SegmentView("s", "lost"), SegmentView("s", "pending")):
        with store.write() as session:
            progress.keep(session, {"tiny-1": view}, every_s=60)
    with store.read() as session:
        assert kept(session) == []


def test_jobs_keep_their_own_points_and_a_strange_segment_none(store: Store) -> None:
    views = {"tiny-1": runs(0, 1, 9.0), "other-1": runs(3, 2, 8.0), "nobody-1": runs(4, 3, 7.0)}
    with store.write() as session:
        progress.keep(session, views, every_s=60)
        assert (kept(session), kept(session, "other")) == ([(0, 1, 9.0)], [(3, 2, 8.0)])


def test_an_earlier_store_gets_the_table(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    before = Store(url)
    with before.write() as session:
        jobs.submit(session, SPEC, T0)
        without_moves(session.connection())
        session.execute(text("DROP TABLE progress"))
        session.execute(text("UPDATE schema_version SET version = 6"))
    before.close()
    opened = Store(url)
    with opened.read() as session:
        assert kept(session) == []
    opened.close()
