"""Orders and results survive their way as JSON.
In: an order and a result. Out: nothing.
The segments' integration test sends them through a real Ray.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from cluster.api import Desire, SegmentOrder, SegmentResult
from cluster.order import read_order, read_result, result_path, write_order, write_result
from jobs.spec import JobSpec

AT = datetime(2026, 3, 1, 6, 30, 0, 250_000, tzinfo=timezone.utc)


def order() -> SegmentOrder:
    spec = JobSpec.model_validate(
        {
            "name": "tiny",
            "job": "train",
            "model": {"config": {"model_type": "llama"}},
            "data": {"files": ["/data/*.txt"]},
            "training": {"steps": 10, "batch_size": 8},
            "workers": {"count": "1..4", "gpus": 0},
            "carbon": {"min_run": "20m", "finish_by": "36h", "budget": "5 kg"},
            "env": {"A": "b"},
        }
    )
    return SegmentOrder(
        segment_id="tiny-1",
        job_id="tiny",
        reason="move",
        zone="DE",
        workers=2,
        spec=spec,
        desire=Desire(AT, "expired", 3),
        slot_s=900.0,
        checkpoints="/c",
        restore_from=None,
        spool="/s",
    )


def test_an_order_reads_back_equal() -> None:
    assert read_order(write_order(order())) == order()


def test_an_order_from_before_there_were_limits_is_read() -> None:
    document = json.loads(write_order(order()))
    assert document.pop("power_limit_w") is None
    assert read_order(json.dumps(document)) == order()
    capped = replace(order(), power_limit_w=300)
    assert read_order(write_order(capped)) == capped


def test_a_result_reads_back_equal_and_lies_beside_the_checkpoints(tmp_path: Path) -> None:
    result = SegmentResult(AT, "paused", 3, 10, {"loss": 2.5}, {"train": 1.0}, 1024, "why", 300, "no")
    path = result_path(str(tmp_path), "tiny-1")
    write_result(path, result)
    assert read_result(path) == result
    assert [each.name for each in path.parent.iterdir()] == ["tiny-1.json"]


def test_a_segment_that_left_nothing_or_half_a_file_has_no_result(tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    assert read_result(path) is None
    path.write_text('{"at": "2026-')
    assert read_result(path) is None
