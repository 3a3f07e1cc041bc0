"""What the control actor keeps, and whom it believes.
In: desires, exchanges and results, as plain calls. Out: nothing.
The segments' integration test runs the same class as a Ray actor.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from cluster.api import Desire, Progress, SegmentResult
from cluster.control import KEPT_RESULTS, Control
from jobs.spec import StaleEpoch

FAR = datetime.now(timezone.utc) + timedelta(hours=1)


def desire(epoch: int = 1, ends_as: str = "expired") -> Desire:
    return Desire(FAR, ends_as, epoch)  # type: ignore[arg-type]


def progress(step: int) -> Progress:
    return Progress(FAR, "train", step, 10, 2.0, step, 1.0)


def result(ended: str = "done") -> SegmentResult:
    return SegmentResult(FAR, ended, 10, 10, {}, {}, 0)  # type: ignore[arg-type]


def test_a_segment_hears_the_newest_desire_and_its_progress_is_seen() -> None:
    control = Control()
    control.desire("a-1", desire(1, "paused"))
    assert control.exchange("a-1", desire(), progress(3)) == desire(1, "paused")
    assert control.views(["a-1", "b-1"])["a-1"].progress == progress(3)
    assert "b-1" not in control.views(["a-1", "b-1"])


def test_a_segment_that_has_no_step_yet_keeps_what_was_known() -> None:
    control = Control()
    control.exchange("a-1", desire(), progress(3))
    control.exchange("a-1", desire(), None)
    assert control.views(["a-1"])["a-1"].progress == progress(3)


def test_an_empty_actor_fills_again_from_what_segments_know() -> None:
    control = Control()
    assert control.exchange("a-1", desire(5, "paused"), None) == desire(5, "paused")
    with pytest.raises(StaleEpoch):
        control.desire("a-1", desire(4))


def test_an_older_epoch_is_refused_and_changes_nothing() -> None:
    control = Control()
    control.desire("a-1", desire(2, "paused"))
    with pytest.raises(StaleEpoch, match="epoch 1"):
        control.desire("a-1", desire(1, "moved"))
    assert control.exchange("a-1", desire(), None) == desire(2, "paused")


def test_no_renewal_undoes_a_halt() -> None:
    control = Control()
    control.desire("a-1", desire())
    assert control.halt("a-1", desire(), "paused") is False
    control.desire("a-1", desire(2))
    told = control.exchange("a-1", desire(), None)
    assert told.ends_as == "paused" and told.run_until <= datetime.now(timezone.utc)


def test_what_halted_a_segment_is_told_with_its_result() -> None:
    control = Control()
    control.desire("a-1", desire())
    control.halt("a-1", desire(), "moved", "node 4fd1 is drained")
    assert control.exchange("a-1", desire(), None).ends_as == "moved"
    control.finish("a-1", desire(), result("moved"))
    report = control.views(["a-1"])["a-1"]
    assert report.why == "node 4fd1 is drained" and report.result == result("moved")


def test_a_halt_leaves_an_end_that_has_begun_its_name() -> None:
    control = Control()
    control.desire("a-1", Desire(datetime.now(timezone.utc), "moved", 1))
    control.halt("a-1", desire(), "paused")
    assert control.exchange("a-1", desire(), None).ends_as == "moved"


def test_a_segment_given_up_ends_at_once_when_halted() -> None:
    control = Control()
    control.desire("a-1", desire())
    control.give_up("a-1")
    assert control.halt("a-1", desire(), "paused") is True


def test_old_results_go_and_running_segments_stay() -> None:
    control = Control()
    control.exchange("running-1", desire(), progress(1))
    names = [f"a-{number}" for number in range(KEPT_RESULTS + 5)]
    for name in names:
        control.finish(name, desire(), result())
    views = control.views(["running-1", *names])
    assert set(views) == {"running-1", *names[5:]}


def test_a_desire_for_a_finished_segment_changes_nothing() -> None:
    control = Control()
    control.finish("a-1", desire(1, "paused"), result())
    control.desire("a-1", desire(2, "moved"))
    assert control.exchange("a-1", desire(), None) == desire(1, "paused")
