"""The embedded Ray's record: whose processes are whose.
In: records of processes that live, died or were never Ray's. Out: nothing.
Starting and stopping a real one is in tests/integration.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster import local
from cluster.attachment import Attachment
from jobs.spec import Unavailable


def record(pid: int, create_time: float, token: str) -> local.Record:
    return local.Record(pid, create_time, token, "127.0.0.1:1", "http://127.0.0.1:1", "DE", "/nowhere")


def test_ports_are_free_and_differ() -> None:
    ports = local._free_ports(11)
    assert len(set(ports)) == 11


def test_stop_finds_nothing_where_nothing_was_started(tmp_path: Path) -> None:
    assert local.stop(str(tmp_path / "absent")) is False
    assert local.stop(str(tmp_path)) is False


def test_stop_leaves_a_process_alone_that_only_has_the_pid(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        local._write(tmp_path, record(other.pid, local._started_s(psutil.Process(other.pid)) - 60, "none"))
        assert local.stop(str(tmp_path)) is False
        assert other.poll() is None
        other.communicate(b"\n")
    assert not (tmp_path / "ray.json").exists()


@pytest.mark.parametrize("step_s", [-3600, 1, 3600])
def test_a_process_is_still_itself_when_the_wall_clock_was_set(monkeypatch: pytest.MonkeyPatch, step_s: int) -> None:
    began_s = local._started_s(psutil.Process())
    boot_s = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_s + step_s)
    monkeypatch.setattr(psutil, "boot_time", lambda: boot_s + step_s)
    assert psutil.Process().create_time() != pytest.approx(began_s + boot_s, abs=0.5)
    assert local._process(os.getpid(), began_s) is not None


def test_stop_ends_an_orphan_that_carries_the_token(tmp_path: Path) -> None:
    environment = {**os.environ, local.TOKEN_VARIABLE: "token-of-this-test"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as orphan:
        local._write(tmp_path, record(os.getpid(), 1.0, "token-of-this-test"))
        assert local.stop(str(tmp_path)) is True
        assert not psutil.pid_exists(orphan.pid)


def test_no_ray_at_an_address_is_said_at_once() -> None:
    with pytest.raises(Unavailable, match="127.0.0.1:1 does not answer"):
        Attachment("127.0.0.1:1").ask("nodes")
