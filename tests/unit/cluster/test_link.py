"""The dead man's switch: when a segment stops, and what it calls its end.
In: desires with a past or future `run_until`. Out: nothing.
Talking to the control actor is the segments' integration test's.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import cluster.link
from cluster.api import Desire
from cluster.link import Link, taken_over
from jobs.checkpoints import fence


def test_goes_on_until_run_until_has_come() -> None:
    link = Link("a-1", Desire(datetime.now(timezone.utc) + timedelta(hours=1), "expired", 1))
    assert not link.stop_wanted()


def test_a_stop_stays_and_keeps_the_name_it_had() -> None:
    link = Link("a-1", Desire(datetime.now(timezone.utc), "paused", 1))
    assert link.stop_wanted()
    link._hear(Desire(datetime.now(timezone.utc) + timedelta(hours=1), "moved", 1))
    assert link.stop_wanted() and link.ends_as == "paused"


@pytest.mark.parametrize("step_h", [-1, 1])
def test_a_wall_clock_that_is_set_changes_no_segments_time(monkeypatch: pytest.MonkeyPatch, step_h: int) -> None:
    now, passed_s = datetime.now(timezone.utc), 0.0

    class SetClock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return now + timedelta(seconds=passed_s)

    monkeypatch.setattr(cluster.link, "datetime", SetClock)
    monkeypatch.setattr(cluster.link, "_elapsed_s", lambda: 1000.0 + passed_s)
    link = Link("a-1", Desire(now + timedelta(minutes=10), "expired", 1))
    now += timedelta(hours=step_h)
    assert not link.stop_wanted()
    passed_s = 599.0
    assert not link.stop_wanted()
    passed_s = 600.0
    assert link.stop_wanted() and link.ends_as == "expired"


def test_shows_the_last_loss_that_was_read() -> None:
    link = Link("a-1", Desire(datetime.now(timezone.utc), "paused", 1))
    assert (link._progress().phase, link._progress().trained_steps) == ("start", 0), "the worker is there"
    link.stepped(1, 10, 2.5, 1, 0.1)
    link.stepped(2, 10, None, 2, 0.2)
    progress = link._progress()
    assert (progress.step, progress.loss, progress.trained_s) == (2, 2.5, 0.2)


def test_while_nobody_answers_a_segment_whose_checkpoints_were_taken_over_stops(tmp_path: Path) -> None:
    until = datetime.now(timezone.utc) + timedelta(hours=1)
    fence.claim(tmp_path, 1)
    link = Link("a-1", Desire(until, "expired", 1), lambda: taken_over(tmp_path, 1))
    link._look()
    assert not link.stop_wanted()
    fence.claim(tmp_path, 2)
    link._look_at_s = 0.0
    link._look()
    assert link.stop_wanted()
    assert "fenced by segment 2 of the job" in taken_over(tmp_path, 1) and not taken_over(tmp_path, 2)


def test_a_folder_that_cannot_be_looked_at_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert taken_over(tmp_path / "file", 1) == ""
    assert taken_over(tmp_path / "missing", 1) == ""
