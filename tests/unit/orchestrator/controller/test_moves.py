"""Orders say where a job's newest checkpoint may lie, wherever its earlier segments ended, and how."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from cluster.api import Progress, SegmentOrder, SegmentResult, SegmentView
from orchestrator.controller.decide import Go
from orchestrator.controller.frame import Framing, frame
from orchestrator.controller.learn import Learned, learn
from orchestrator.controller.outlook import Outlook
from orchestrator.controller.settle import settle
from orchestrator.controller.write import Verdict, write_all
from orchestrator.plan.problem import OperatingPoint, PauseCost, Stretch
from orchestrator.store import Store, jobs
from orchestrator.store.schema import Event, Job, Segment
from tests.unit.orchestrator.specs import PLACES, tiny

NOW = datetime(2026, 3, 1, 6, tzinfo=timezone.utc)
SPEC = tiny(steps=100)
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
        (order,) = write_all(session, [Verdict("tiny", SPEC, go, None, None)], PLACES, 1, NOW)
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
            write_all(session, [Verdict("tiny", SPEC, go, None, None)], PLACES, 1, NOW)
            return session.get_one(Job, "tiny").reason

    said = "the checkpoint of step 5 was not saved (/gb: No space left on device); that of step 3 stands"
    assert told("") == "goes on"
    assert told(said) == told(said) == f"goes on; {said}"
    assert told("") == "goes on"
    with store.read() as session:
        assert [event.text for event in session.query(Event) if "not saved" in event.text] == [f"segment 1: {said}"]


def trained(store: Store, n: int, zone: str, **told: object) -> None:
    """A segment that began to train 40 s after its order."""
    with store.write() as session:
        at = NOW + timedelta(hours=n)
        segment = Segment(
            id=f"tiny-{n}", job_id="tiny", n=n, zone=zone, workers=1, gpus=0, reason="resume", run_until=at,
            ends_as="paused", ordered_at=at, first_step_at=at + timedelta(seconds=40), start_step=0, step=100,
            trained_steps=100, trained_s=100.0, ended="paused", ended_at=at, checkpoint_bytes=6_000_000, parts_s={},
        )  # fmt: skip
        for name, value in told.items():
            setattr(segment, name, value)
        session.add(segment)


def test_what_a_move_takes_is_measured_apart_from_a_start(store: Store) -> None:
    trained(store, 1, "DE", parts_s={"mirror": 2.0, "checkpoint": 1.0})
    for n, transfer_s in ((2, 10.0), (3, 30.0), (4, 12.0)):
        parts_s = {"transfer": transfer_s, "mirror": 2.0, "checkpoint": 1.0}
        began = NOW + timedelta(hours=n, seconds=40 + transfer_s)
        trained(store, n, "FR", parts_s=parts_s, moved_bytes=500, first_step_at=began)
    with store.read() as session:
        learned = learn(session, session.get_one(Job, "tiny").likeness)
    assert learned.pause == PauseCost(resume_s=43.0, move_s=12.0)
    assert learned.stop_s == 4.5
    assert learned.checkpoint_bytes == 6_000_000


@pytest.mark.parametrize(
    ("zones", "bandwidth", "measured_s", "expected"),
    [
        (("DE", "FR"), 2.0, 0.0, 3.0),  # 6 MB over 2 MB/s
        (("DE", "FR"), 2.0, 12.0, 12.0),
        (("DE", "FR"), None, 0.0, 0.0),
        (("DE", "PL"), 2.0, 0.0, 0.0),  # they share a bucket
        (("DE",), 2.0, 0.0, 0.0),
    ],
)
def test_a_move_that_nobody_has_measured_takes_its_size_over_the_bandwidth(
    zones: tuple[str, ...], bandwidth: float | None, measured_s: float, expected: float
) -> None:
    de = PLACES.zones["DE"].model_copy(update={"bandwidth_mb_per_s": bandwidth})
    site = PLACES.model_copy(update={"zones": {**PLACES.zones, "DE": de}})
    point = OperatingPoint(1, 1.0, 300.0)
    framing = Framing(
        spec=SPEC,
        submitted_at=NOW,
        now=NOW,
        step=0,
        steps=100,
        learned=Learned({(1, None): point}, PauseCost(60.0, measured_s), 15.0, checkpoint_bytes=6_000_000),
        curves={zone: Outlook((Stretch(NOW, NOW + timedelta(days=2), 300.0),)) for zone in zones},
        modes={zone: ((1, None),) for zone in zones},
        current=None,
        has_run=True,
        last_zone="DE",
        window_end=None,
    )
    problem = frame(framing, None, site)
    assert not isinstance(problem, str)
    assert problem.pause == PauseCost(60.0, expected)
