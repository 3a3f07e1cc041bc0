"""The embedded Ray: found again, replaced when dead, and ended to its last process.
In: a temporary state folder. Out: nothing.
Segments run on it in test_segments.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from cluster import local
from cluster.api import connect, start_local, stop_local
from jobs.spec import Unavailable


def test_is_found_again_replaced_when_killed_and_ended_whole(tmp_path: Path) -> None:
    state = str(tmp_path)
    try:
        address = start_local(state, "FR", 1)
        assert start_local(state, "FR", 1) == address
        assert [node.zone for node in connect(address).nodes()] == ["FR"]
        first = local._read(tmp_path)
        assert first is not None
        listening = [
            connection.laddr.ip
            for process in local._own(first)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening and {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}

        head = psutil.Process(first.pid)
        head.kill()  # its children are orphans now
        head.wait(30)
        assert start_local(state, "FR", 1) != address
        assert local._own(first) == []
        second = local._read(tmp_path)
        assert second is not None
    finally:
        assert stop_local(state)
    assert local._own(second) == []
    assert stop_local(state) is False


def test_keeps_no_worker_that_nobody_asked_for(tmp_path: Path) -> None:
    state = str(tmp_path)
    try:
        connect(start_local(state, "FR", 4)).observe(["none-1"])  # whoever attaches first waits for what Ray prestarts
        record = local._read(tmp_path)
        assert record is not None
        names = [process.cmdline()[0].strip() for process in local._own(record) if process.cmdline()]
        assert "ray::Control" in names and "ray::IDLE" not in names
    finally:
        stop_local(state)


def test_says_why_it_did_not_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="must be nonnegative"):
        start_local(str(tmp_path), "DE", -1)
    assert not (tmp_path / "ray.json").exists()
