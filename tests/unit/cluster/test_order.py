"""Orders and results survive their way as JSON.
In: an order and a result. Out: nothing.
The segments' integration test sends them through a real Ray.
"""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cluster.api import Desire, SegmentOrder, SegmentResult
from cluster.order import leave_result, read_order, read_result, result_path, write_order, write_result
from jobs.spec import JobSpec, Unavailable

AT = datetime(2026, 3, 1, 6, 30, 0, 250_000, tzinfo=timezone.utc)
RESULT = SegmentResult(AT, "paused", 3, 10, {"loss": 2.5}, {"train": 1.0}, 1024, "why", 300, "no", 700, "s3://de/tiny")


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
        restore_from="s3://fr/tiny",
        spool="/s",
        also_at=("/fr", "/gb"),
        mirror="s3://de/tiny",
        start_step=7,
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
    path = result_path(str(tmp_path), "tiny-1")
    write_result(path, RESULT)
    assert read_result(path) == RESULT
    assert [each.name for each in path.parent.iterdir()] == ["tiny-1.json"]


def test_a_segment_that_left_nothing_or_half_a_file_has_no_result(tmp_path: Path) -> None:
    path = tmp_path / "half.json"
    assert read_result(path) is None
    path.write_text('{"at": "2026-')
    assert read_result(path) is None


def test_a_disk_that_takes_no_result_is_told_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        assert not leave_result(tmp_path / "full" / "a-1.json", RESULT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be left beside the checkpoints" in capsys.readouterr().out
    monkeypatch.setattr("cluster.order.SILENCE_S", 0.2)
    os.mkfifo(tmp_path / "a-1.part")  # to open it waits for a reader, as on a file server that is gone
    assert not leave_result(tmp_path / "a-1.json", RESULT)
    assert "has not answered for 0.2 s" in capsys.readouterr().out
    os.mkfifo(tmp_path / "a-3.json")
    monkeypatch.setattr("cluster.order.READ_S", 0.2)
    with pytest.raises(Unavailable, match=r"a-3.json has not answered for 0.2 s"):
        read_result(tmp_path / "a-3.json")
    assert leave_result(tmp_path / "a-2.json", RESULT) and read_result(tmp_path / "a-2.json") == RESULT
