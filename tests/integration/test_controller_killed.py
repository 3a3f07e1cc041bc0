"""A controller that is killed while its job trains: the segment ends by itself, and cron's ticks finish the job.
In: `lowtide serve`, kill -9, then `lowtide tick` again and again. Out: no step lost, no joule twice or missing.
What the spool does between commit and acknowledgement is held by the meter's unit tests.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from itertools import pairwise

import psutil
import pytest

from cluster.api import MeterRow, SegmentResult
from cluster.order import read_result, result_path
from tests.integration.command import Lowtide
from tests.integration.conftest import Opening

pytestmark = pytest.mark.timeout(1800)  # its fixtures take minutes where others use the machine, too

STEPS = 1200
"""More than any machine takes in the time that a segment goes on without a controller."""
RENEW_WITHIN = "20s"
ATTACHMENT = "cluster.attachment"


@pytest.fixture(scope="module")
def site(lowtide_at: Opening) -> Lowtide:
    return lowtide_at(renew_within=RENEW_WITHIN)


@pytest.fixture(scope="module")
def expired(site: Lowtide) -> tuple[int, datetime, SegmentResult]:
    """The step that the controller last saw, its last word on `run_until`, and the end that the segment came to."""
    training = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2}
    site.run("submit", site.spec("orphan", training=training))
    with site.start("serve") as serve:
        seen = site.until(lambda: site.training("orphan"), "orphan")
        attached = [child for child in psutil.Process(serve.pid).children() if ATTACHMENT in child.cmdline()]
        serve.kill()
        serve.communicate()
    assert seen is not None and attached
    assert psutil.wait_procs(attached, timeout=60)[1] == [], "what a controller attaches with ends with it"
    (segment,) = site.segments("orphan")
    path = result_path(str(site.checkpoints("orphan")), segment.id)
    return seen.step, segment.run_until, site.until(lambda: read_result(path), "orphan")


@pytest.fixture(scope="module")
def finished(site: Lowtide, expired: tuple[int, datetime, SegmentResult]) -> Lowtide:
    """The site after cron's ticks have found the job and brought it to its end."""
    site.ticks(lambda: site.job("orphan").state == "done", "orphan")
    return site


def by_device(rows: list[MeterRow]) -> dict[tuple[str | None, int | None, str], list[MeterRow]]:
    grouped: dict[tuple[str | None, int | None, str], list[MeterRow]] = defaultdict(list)
    for row in rows:
        grouped[(row.segment_id, row.rank, row.device)].append(row)
    return grouped


def test_the_segment_trains_on_until_its_run_until_then_saves_and_ends(
    site: Lowtide, expired: tuple[int, datetime, SegmentResult]
) -> None:
    step, run_until, result = expired
    assert result.ended == "expired"
    assert result.at >= run_until
    assert step < result.step < STEPS
    published = json.loads((site.checkpoints("orphan") / "published.json").read_text())["published"]
    assert published[0] == f"step-{result.step:08d}-1"


def test_ticks_find_the_end_and_go_on_from_the_checkpoint(
    finished: Lowtide, expired: tuple[int, datetime, SegmentResult]
) -> None:
    result = expired[2]
    job, segments = finished.job("orphan"), finished.segments("orphan")
    assert (job.state, job.step) == ("done", STEPS)
    # A machine so slow that ticks come further apart than RENEW_WITHIN has further segments that expire.
    assert [segment.reason for segment in segments] == ["start", *["resume"] * (len(segments) - 1)]
    assert [segment.ended for segment in segments] == [*["expired"] * (len(segments) - 1), "done"]
    assert (segments[0].ended_at, segments[0].step) == (result.at, result.step)
    assert all(before.step == after.start_step for before, after in pairwise(segments))
    assert job.metrics["samples"] == STEPS * 8


def test_no_joule_is_missing_and_none_is_counted_twice(finished: Lowtide) -> None:
    rows = finished.rows("orphan")
    assert len({(row.host_boot, row.device, row.seq) for row in rows}) == len(rows)
    grouped = by_device(rows)
    for segment in finished.segments("orphan"):
        assert {rank for segment_id, rank, _ in grouped if segment_id == segment.id} == {-1, 0, 1}
    for own in grouped.values():
        assert all(before.end == after.start for before, after in pairwise(own))
        assert all(row.energy_j is not None and row.start < row.end for row in own)
    report = finished.ask("report", "orphan")
    metered_j = sum(row.energy_j or 0.0 for row in rows)
    assert metered_j > 0
    for figures in ([report["energy_j"]], report["phases"].values(), (s["energy_j"] for s in report["segments"])):
        assert sum(figures) == pytest.approx(metered_j)
    assert report["unmetered_s"] == pytest.approx(0.0, abs=1.0)


def test_a_further_tick_does_nothing_new(finished: Lowtide) -> None:
    before = (len(finished.segments("orphan")), len(finished.rows("orphan")), finished.ask("status", "orphan"))
    finished.run("tick")
    assert (len(finished.segments("orphan")), len(finished.rows("orphan")), finished.ask("status", "orphan")) == before
