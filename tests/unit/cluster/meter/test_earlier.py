"""A host that died and came back: the rows that its earlier boot left in the spool folder are taken, once.
In: spool folders with files of several boots. Out: nothing.
The meter's actor hands these rows to the controller with its own.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from cluster.api import MeterRow
from cluster.meter import earlier
from cluster.meter.spool import Spool

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
OLD, NEW = "00000000-old", "11111111-new"


def row(n: int) -> MeterRow:
    start = T0 + timedelta(seconds=n)
    end = start + timedelta(seconds=1)
    return MeterRow("", "GPU-a", 0, "host", start, end, 100.0, "nvml-counter", "train", "job", "job-1", 0, "GPU-a")


def left_by_a_host_that_died(folder: Path) -> list[MeterRow]:
    spool = Spool(folder, OLD)
    rows = [each for n in range(3) for each in spool.append([row(n)], {"owners": []})]
    spool.close()  # its lock goes with the host
    return rows


def test_what_an_earlier_boot_left_is_pulled_until_it_is_acknowledged(tmp_path: Path) -> None:
    rows = left_by_a_host_that_died(tmp_path)
    assert earlier.pull(tmp_path, NEW) == rows
    assert earlier.pull(tmp_path, NEW) == rows, "pulling takes nothing away"
    earlier.acknowledge(tmp_path, NEW, {OLD: [(rows[0].device, rows[0].seq)]})
    assert earlier.pull(tmp_path, NEW) == rows[1:]
    earlier.acknowledge(tmp_path, NEW, {OLD: [(each.device, each.seq) for each in rows], "22222222-other": []})
    assert earlier.pull(tmp_path, NEW) == []


def test_the_spool_of_the_boot_that_lives_is_not_touched(tmp_path: Path) -> None:
    left_by_a_host_that_died(tmp_path)
    assert earlier.pull(tmp_path, OLD) == []


def test_a_spool_whose_meter_lives_on_another_host_is_left_to_it(tmp_path: Path) -> None:
    left_by_a_host_that_died(tmp_path)
    other = Spool(tmp_path, OLD)
    assert earlier.pull(tmp_path, NEW) == []
    other.close()
    assert len(earlier.pull(tmp_path, NEW)) == 3


def test_a_damaged_spool_of_an_earlier_boot_holds_nothing_up(tmp_path: Path) -> None:
    left_by_a_host_that_died(tmp_path)
    (tmp_path / "33333333-damaged.jsonl").write_text("not json\n")
    assert len(earlier.pull(tmp_path, NEW)) == 3
