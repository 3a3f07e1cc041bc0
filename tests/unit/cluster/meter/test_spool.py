"""A spool loses no row and gives none a second number, whenever its meter is killed.
In: rows, acknowledgements, kill -9 between them. Out: what a later spool of the same folder gives.
The store's keys take care of rows that come twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cluster.api import MeterRow
from cluster.meter import spool as spool_module
from cluster.meter.spool import Spool
from jobs.spec import Unavailable

START = datetime(2027, 1, 15, 8, 0, tzinfo=timezone.utc)


def row(minute: int, device: str = "cpu") -> MeterRow:
    start = START + timedelta(minutes=minute)
    return MeterRow(
        host_boot="boot",
        device=device,
        seq=0,
        node="host",
        start=start,
        end=start + timedelta(minutes=1),
        energy_j=None if minute == 1 else 7.5 * minute,
        source="estimated",
        phase="train",
        job_id="job",
        segment_id="job-1",
        rank=0,
    )


def keys(rows: list[MeterRow]) -> list[tuple[str, int]]:
    return [(one.device, one.seq) for one in rows]


def test_rows_come_back_as_they_were_numbered_by_device(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot")
    written = spool.append([row(0), row(0, "GPU-a")], {}) + spool.append([row(1)], {})
    assert sorted(spool.pull(), key=lambda r: (r.start, r.device)) == sorted(written, key=lambda r: (r.start, r.device))
    assert [one.seq - written[0].seq for one in written if one.device == "cpu"] == [0, 1]


def test_acknowledged_rows_do_not_come_again_even_out_of_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot")
    first, second, third = spool.append([row(0), row(1), row(2)], {})
    spool.acknowledge(keys([second]))
    assert spool.pull() == [first, third]
    spool.acknowledge(keys([first]))
    spool.close()
    again = Spool(tmp_path, "boot")
    assert again.pull() == [third]
    again.acknowledge(keys([third]))
    assert again.pull() == []


def test_numbers_go_on_after_a_restart_also_when_all_was_taken(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot")
    written = spool.append([row(0), row(1)], {"counter": 3})
    spool.acknowledge(keys(written))
    spool.close()
    again = Spool(tmp_path, "boot")
    assert again.state == {"counter": 3}
    (later,) = again.append([row(2)], {})
    assert later.seq == written[-1].seq + 1


def test_a_spool_that_was_lost_does_not_start_from_one_again(tmp_path: Path) -> None:
    (before,) = Spool(tmp_path / "lost", "boot").append([row(0)], {})
    (after,) = Spool(tmp_path / "fresh", "boot").append([row(1)], {})
    assert before.seq > 1_000_000
    assert after.seq >= before.seq


def test_a_long_file_is_rewritten_with_what_nobody_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "COMPACT_BYTES", 1000)
    spool = Spool(tmp_path, "boot")
    written = [spool.append([row(minute)], {"minute": minute})[0] for minute in range(20)]
    size = (tmp_path / "boot.jsonl").stat().st_size
    spool.acknowledge(keys(written[:18]))
    assert (tmp_path / "boot.jsonl").stat().st_size < size / 4
    assert spool.pull() == written[18:]
    spool.close()
    again = Spool(tmp_path, "boot")
    assert again.pull() == written[18:]
    assert again.state == {"minute": 19}


def test_a_torn_last_line_is_set_aside_and_the_rest_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, "boot")
    written = spool.append([row(0)], {"minute": 0})
    spool.append([row(1)], {"minute": 1})
    spool.close()
    file = tmp_path / "boot.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    again = Spool(tmp_path, "boot")
    assert "torn" in caplog.text
    assert again.pull() == written
    assert again.state == {"minute": 0}
    assert (tmp_path / "boot.torn").read_bytes().startswith(b'{"rows"')
    again.append([row(2)], {})
    assert len(again.pull()) == 2


def test_a_damaged_line_in_the_middle_is_named_and_never_skipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "boot")
    spool.append([row(0)], {})
    spool.close()
    file = tmp_path / "boot.jsonl"
    file.write_bytes(b"{broken\n" + file.read_bytes())
    with pytest.raises(Unavailable, match="line 1 is damaged"):
        Spool(tmp_path, "boot")


def test_two_meters_cannot_write_one_spool(tmp_path: Path) -> None:
    first = Spool(tmp_path, "boot")
    with pytest.raises(Unavailable, match="another meter"):
        Spool(tmp_path, "boot")
    Spool(tmp_path, "other-boot").close()
    first.close()
    Spool(tmp_path, "boot").close()


WRITER = """
import json, os, sys
from pathlib import Path
from cluster.meter.spool import Spool
from tests.unit.cluster.meter.test_spool import row
spool = Spool(Path(sys.argv[1]), "boot", wait_s=10)
taken = open(sys.argv[2], "a", buffering=1)
for minute in range(100_000):
    spool.append([row(minute), row(minute, "GPU-a")], {"minute": minute})
    rows = spool.pull()
    for one in rows:
        taken.write(json.dumps([one.device, one.seq, one.start.isoformat()]) + "\\n")
    if minute % 3 == 0:
        spool.acknowledge((one.device, one.seq) for one in rows)
    if minute % 10 == 0:
        print(minute, flush=True)
"""


def test_kill_9_between_append_and_acknowledge_loses_and_doubles_nothing(tmp_path: Path) -> None:
    folder, taken = tmp_path / "spool", tmp_path / "taken.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for lines in (1, 2, 3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(taken)], stdout=subprocess.PIPE, env=environment
        )
        assert writer.stdout is not None
        with writer.stdout:
            for _ in range(lines):
                assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    spool = Spool(folder, "boot")
    committed = [json.loads(line) for line in taken.read_text().splitlines()]
    committed += [[one.device, one.seq, one.start.isoformat()] for one in spool.pull()]
    by_key = {(device, seq): start for device, seq, start in committed}
    assert len({tuple(entry) for entry in committed}) == len(by_key), "a number stands for two rows"
    for device in ("cpu", "GPU-a"):
        seqs = sorted(seq for one, seq in by_key if one == device)
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "a row is missing"
