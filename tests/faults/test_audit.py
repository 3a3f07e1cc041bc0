"""The campaign's own eyes: what is lost, doubled or changed is seen.
In: rows and checkpoints made up with one thing wrong. Out: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch

from orchestrator.store.schema import LedgerRow
from tests.faults.audit import Key, _against_the_counter, due
from tests.integration.ranks import MODEL, differing
from tests.nvml.curves import energy_j

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
UUID = "GPU-00000000-0000-0000-0000-000000000000"


def row(n: int, segment_id: str | None = "job-1") -> LedgerRow:
    start, end = T0 + timedelta(seconds=10 * n), T0 + timedelta(seconds=10 * (n + 1))
    drawn_j = energy_j("square", start.timestamp(), end.timestamp())
    return LedgerRow(
        host_boot="boot", device=UUID, seq=n, uuid=UUID, start=start, end=end, energy_j=drawn_j, segment_id=segment_id
    )


def doubled(rows: list[LedgerRow]) -> None:
    again = row(3, None)
    again.seq = 99
    rows.insert(4, again)


def lost(rows: list[LedgerRow]) -> None:
    del rows[3]


def changed(rows: list[LedgerRow]) -> None:
    assert rows[3].energy_j is not None
    rows[3].energy_j += 500.0


def test_rows_of_jobs_and_of_nobody_that_tile_a_gpus_time_are_well() -> None:
    rows = [row(n, "job-1" if n % 2 else None) for n in range(8)]
    gone = row(4)
    gone.energy_j = None  # unmetered beside the idle row that has its joules
    assert _against_the_counter(0, "square", [*rows[:5], gone, *rows[5:]]) == []


@pytest.mark.parametrize(
    ("wrong", "says"), [(doubled, "counter moved"), (lost, "10.000 s"), (changed, "counter moved")]
)
def test_a_row_that_is_doubled_lost_or_changed_is_seen(wrong: Callable[[list[LedgerRow]], None], says: str) -> None:
    rows = [row(n) for n in range(8)]
    wrong(rows)
    assert any(says in text for text in _against_the_counter(0, "square", rows))
    assert _against_the_counter(1, "square", rows) == ["GPU 1 was never metered"]


def test_a_host_owes_its_rows_up_to_its_first_word_since_its_last_segment_ended() -> None:
    def spooled(host: str, device: str, n: int, job_id: str | None = None) -> tuple[Key, dict[str, str]]:
        end = T0 + timedelta(seconds=10 * (n + 1))
        told = {"end": end.isoformat(), **({"job_id": job_id, "segment_id": f"{job_id}-1"} if job_id else {})}
        return (host, device, n), told

    rows = dict(
        [
            *(spooled("a", "gpu", n, "one" if n < 3 else None) for n in range(9)),
            *(spooled("a", "cpu", n) for n in range(2, 9)),
            *(spooled("b", "gpu", n) for n in range(9)),
        ]
    )
    ended_at = {"one-1": T0 + timedelta(seconds=32), "two-1": T0 + timedelta(seconds=21)}
    both = {(host, "gpu", n) for host in "ab" for n in range(3)}
    assert due(rows, ended_at) == both | {("a", "cpu", 2), ("a", "cpu", 3)}
    assert due(rows, {}) == set(rows)


def checkpoints(folder: Path, weight: float, step: int = 8) -> Path:
    (folder / MODEL).parent.mkdir(parents=True)
    (folder / MODEL).write_bytes(b"the same")
    (folder / f"step-{step:08d}").mkdir()
    torch.save({"weight": torch.tensor([1.0, weight])}, folder / f"step-{step:08d}" / "rank-0.pt")
    (folder / "published.json").write_text(json.dumps({"published": [f"step-{step:08d}"]}))
    return folder


def test_one_bit_of_a_weight_is_seen(tmp_path: Path) -> None:
    whole = checkpoints(tmp_path / "whole", 2.0)
    assert differing(whole, checkpoints(tmp_path / "same", 2.0)) == []
    assert differing(whole, checkpoints(tmp_path / "other", 2.0000002)) == ["rank-0.pt.weight"]
    assert differing(whole, checkpoints(tmp_path / "earlier", 2.0, step=7)) == ["the last step is 7, not 8"]
    other = checkpoints(tmp_path / "model", 2.0)
    (other / MODEL).write_bytes(b"the samf")
    assert differing(whole, other) == [str(MODEL)]
