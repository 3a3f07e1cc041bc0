"""A move between zones on a real Ray, by way of S3: sent while it trains, brought where the job goes on.
In: an embedded Ray, an S3-compatible server on loopback, a tiny CPU job. Out: nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cluster.api import Cluster, Desire, SegmentOrder, SegmentResult
from jobs.checkpoints.target import Target
from tests import s3
from tests.integration.test_segments import ended, order, ray_in_de, watch

__all__ = ["order", "ray_in_de"]  # fixtures


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3.running() as found:
        yield found


def result_of(cluster: Cluster, segment: SegmentOrder) -> SegmentResult:
    cluster.start(segment)
    result = watch(cluster, segment.segment_id, ended).result
    assert result is not None, "".join(cluster.logs(segment.segment_id))
    return result


def test_a_job_moves_by_way_of_s3_and_outlives_its_first_folder(
    ray_in_de: Cluster,
    order: Callable[..., SegmentOrder],
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = s3.environment(endpoint)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.make_bucket()}/de/tiny"
    first = order("moving-1", steps=2000)
    first = replace(first, spec=first.spec.model_copy(update={"env": variables}), mirror=url)
    ray_in_de.start(first)
    watch(ray_in_de, "moving-1", lambda view: view.progress is not None and view.progress.step > 2)
    ray_in_de.desire("moving-1", Desire(datetime.now(timezone.utc), "moved", 1))
    left = watch(ray_in_de, "moving-1", ended).result
    assert left is not None and left.ended == "moved" and (left.moved_bytes, left.moved_from) == (0, None)
    assert left.parts_s["mirror"] >= 0 and "transfer" not in left.parts_s
    shutil.rmtree(first.checkpoints)

    second = order("moving-2", steps=left.step + 3, checkpoints=str(tmp_path / "elsewhere"), restore_from=url)
    second = replace(second, spec=second.spec.model_copy(update={"env": variables}), start_step=left.step)
    result = result_of(ray_in_de, second)
    assert (result.ended, result.step, result.moved_from) == ("done", left.step + 3, url)
    assert result.moved_bytes is not None and 0 < result.moved_bytes <= left.checkpoint_bytes
    assert result.parts_s["transfer"] > 0
    assert Target(url).folders() == [f"step-{left.step:08d}-1"]


def test_a_place_that_does_not_answer_loses_the_segment_with_its_name(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder], tmp_path: Path
) -> None:
    segment = order("silent-1", steps=5, restore_from="s3://tide/de/tiny", start_step=7)
    nowhere = s3.environment("http://127.0.0.1:9")
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'lowtide[s3]'")
    segment = replace(segment, spec=segment.spec.model_copy(update={"env": nowhere}))
    result = result_of(ray_in_de, segment)
    assert result.ended == "lost" and result.error is not None
    line = result.error.strip().splitlines()[-1]
    assert "the checkpoint of step 7 cannot be brought: s3://tide/de/tiny does not answer" in line
