"""Orders say where a job's newest checkpoint may lie, wherever its earlier segments ended, and how."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cluster.api import Progress, SegmentOrder, SegmentResult, SegmentView
from jobs.spec import JobSpec
from orchestrator.controller.decide import Go
from orchestrator.controller.settle import settle
from orchestrator.controller.write import Verdict, write_all
from orchestrator.site import Site
from orchestrator.store import Store, jobs
from orchestrator.store.schema import Event, Job, Segment

NOW = datetime(2026, 3, 1, 6, tzinfo=timezone.utc)
SPEC = JobSpec.model_validate(
    {
        "name": "tiny",
        "job": "train",
        "model": {"config": {"model_type": "llama"}},
        "data": {"files": ["x.txt"]},
        "training": {"steps": 100, "batch_size": 8},
        "workers": {"gpus": 0},
    }
)
SITE = Site.model_validate(
    {
        "state": Path("/state"),
        "zones": {
            "DE": {"provider": "demo", "checkpoints": "s3://de"},
            "FR": {"provider": "demo", "checkpoints": "/fr"},
            "GB": {"provider": "demo", "checkpoints": "/gb"},
            "PL": {"provider": "demo", "checkpoints": "s3://de"},
        },
    }
)
WORKING = "/state/working/DE/tiny"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    with opened.write() as session:
        jobs.submit(session, SPEC, NOW)
    yield opened
    opened.close()


def ordered(store: Store, zone: str) -> SegmentOrder:
    """Go on in this zone; the order of the pass that begins the segment."""
    go = Go(zone, (1, None), NOW + timedelta(hours=1), "expired", "resume", "goes on")
    with store.write() as session:
        (order,) = write_all(session, [Verdict("tiny", SPEC, go, None, None)], SITE, 1, NOW)
    assert order is not None
    return order.segment


def ended(store: Store, order: SegmentOrder, how: str, step: int) -> None:
    result = SegmentResult(NOW, how, step, 100, {}, {}, 1000, moved_bytes=500, moved_from="/fr/tiny")  # type: ignore[arg-type]
    with store.write() as session:
        settle(session, {order.segment_id: SegmentView(order.segment_id, "ended", None, result)}, NOW)


def test_a_first_segment_has_nowhere_to_look_but_its_own_place(store: Store) -> None:
    order = ordered(store, "DE")
    assert (order.checkpoints, order.mirror) == (WORKING, "s3://de/tiny")
    assert (order.restore_from, order.also_at, order.start_step) == (None, (), 0)


def test_a_move_looks_where_the_last_segment_saved_and_on_the_way_back_again(store: Store) -> None:
    ended(store, ordered(store, "DE"), "moved", 30)
    order = ordered(store, "FR")
    assert (order.restore_from, order.also_at, order.start_step) == ("s3://de/tiny", (WORKING,), 30)
    assert (order.checkpoints, order.mirror) == ("/fr/tiny", None)
    ended(store, order, "moved", 60)
    order = ordered(store, "DE")
    assert (order.restore_from, order.also_at, order.mirror) == ("/fr/tiny", (), "s3://de/tiny")


def test_what_lost_segments_may_have_saved_is_looked_for_back_to_the_last_that_ended_well(store: Store) -> None:
    ended(store, ordered(store, "GB"), "paused", 10)
    ended(store, ordered(store, "DE"), "moved", 30)
    for zone in ("FR", "FR", "GB"):
        ended(store, ordered(store, zone), "lost", 0)
    order = ordered(store, "PL")
    assert order.restore_from is None, "PL keeps its checkpoints at the URL of DE"
    assert order.also_at == ("/gb/tiny", "/fr/tiny", WORKING)
    assert order.start_step == 30


def test_a_zone_that_the_site_has_no_more_is_left_out(store: Store) -> None:
    ended(store, ordered(store, "FR"), "paused", 10)
    with store.write() as session:
        for row in (session.get_one(Segment, "tiny-1"), session.get_one(Job, "tiny")):
            row.zone = "XX"
    order = ordered(store, "GB")
    assert (order.restore_from, order.also_at) == (None, ())


def test_what_a_segment_brought_and_from_where_is_kept(store: Store) -> None:
    ended(store, ordered(store, "GB"), "paused", 10)
    with store.read() as session:
        segment = session.get_one(Segment, "tiny-1")
        assert (segment.moved_bytes, segment.moved_from) == (500, "/fr/tiny")


def test_a_checkpoint_that_could_not_be_saved_shows_in_status_and_history_until_one_is(store: Store) -> None:
    order = ordered(store, "GB")

    def told(note: str) -> str:
        progress = Progress(NOW, "train", 5, 100, None, 5, 1.0, note=note)
        with store.write() as session:
            settle(session, {order.segment_id: SegmentView(order.segment_id, "running", progress)}, NOW)
        go = Go("GB", (1, None), NOW + timedelta(hours=1), "expired", "resume", "goes on")
        with store.write() as session:
            write_all(session, [Verdict("tiny", SPEC, go, None, None)], SITE, 1, NOW)
            return session.get_one(Job, "tiny").reason

    said = "the checkpoint of step 5 was not saved (/gb: No space left on device); that of step 3 stands"
    assert told("") == "goes on"
    assert told(said) == told(said) == f"goes on; {said}"
    assert told("") == "goes on"
    with store.read() as session:
        assert [event.text for event in session.query(Event) if "not saved" in event.text] == [f"segment 1: {said}"]
