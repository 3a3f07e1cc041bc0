"""A job of one or two workers is resized on a real Ray, by two orders as the plan's change of width gives them.
In: an embedded Ray, a tiny CPU job with dropout, through cluster.api alone. Out: nothing.
tests/integration/test_resize.py holds stages, precisions and widths; this holds that segments carry them out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cluster.api import Cluster, Desire, SegmentOrder, connect, start_local, stop_local
from jobs.audit import taken
from jobs.spec import JobSpec
from tests.integration.ranks import LLAMA, run_ranks, spec_of, told, write_corpus
from tests.integration.test_segments import ended, watch

STEPS = 120
MODEL = {**LLAMA, "hidden_size": 128, "intermediate_size": 256}
"""Wide enough that its steps take some seconds, in which the order to stop comes."""


@pytest.fixture(scope="module")
def ray_in_de(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    state = tmp_path_factory.mktemp("state")
    yield connect(start_local(str(state), "DE", 4))
    assert stop_local(str(state))


def order_of(folder: Path, segment_id: str, workers: int, **changes: Any) -> SegmentOrder:
    corpus = write_corpus(folder / "corpus.txt", lines=24)
    document = spec_of("elastic", corpus, STEPS, model={"config": MODEL}, env={"LOWTIDE_AUDIT": "1"})
    document |= {"workers": {"count": "1..2", "gpus": 0, "cpus": 1}, "checkpoint": {"every": "1h"}}
    document |= {"deepspeed": {"zero_optimization": {"stage": 2}}}
    document["training"] |= {"micro_batch_size": 1, "learning_rate": 1e-3}
    known: dict[str, Any] = {
        "segment_id": segment_id,
        "job_id": "elastic",
        "reason": "start",
        "zone": "DE",
        "workers": workers,
        "spec": JobSpec.model_validate(document),
        "desire": Desire(datetime.now(timezone.utc) + timedelta(minutes=10), "expired", 1),
        "slot_s": 60.0,
        "checkpoints": str(folder / "checkpoints"),
        "restore_from": None,
        "spool": str(folder / "spool"),
        "threads": 1,
    }
    return SegmentOrder(**{**known, **changes})


def test_a_job_that_is_resized_ends_with_the_loss_of_one_that_was_not(ray_in_de: Cluster, tmp_path: Path) -> None:
    first = order_of(tmp_path, "elastic-1", 2)
    ray_in_de.start(first)
    watch(ray_in_de, "elastic-1", lambda view: view.progress is not None and view.progress.step >= 1)
    ray_in_de.desire("elastic-1", Desire(datetime.now(timezone.utc), "resized", 1))
    before = watch(ray_in_de, "elastic-1", ended).result
    assert before is not None and before.ended == "resized" and 1 <= before.step < STEPS, before

    ray_in_de.start(order_of(tmp_path, "elastic-2", 1, reason="resize", start_step=before.step))
    after = watch(ray_in_de, "elastic-2", ended).result
    assert after is not None and after.ended == "done" and after.step == STEPS, after
    print("resize:", json.dumps(dict(after.parts_s)))
    assert after.parts_s["convert"] > 0
    assert "of 2 workers converted for 1:" in "".join(ray_in_de.logs("elastic-2"))

    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "spec.json").write_text(json.dumps(first.spec.to_json()))
    run_ranks(tmp_path, 2, "whole:0")  # the same job, undisturbed
    whole = told(tmp_path, "whole")["outcome"]["metrics"]
    assert after.metrics["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    assert after.metrics["holdout_loss"] == pytest.approx(whole["holdout_loss"], abs=1e-4)
    assert taken(tmp_path / "checkpoints" / "audit") == taken(tmp_path / "whole" / "checkpoints" / "audit")
