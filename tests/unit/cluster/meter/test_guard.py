"""The guard gives power limits back where no meter comes again: one for a host, and nobody's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.meter import guard
from cluster.meter.spool import Spool
from tests.unit.cluster.meter.standin import GPU, environment


def test_a_guard_gives_back_what_a_meter_left_that_never_came_again(standin: Path, tmp_path: Path) -> None:
    spool, limits = tmp_path / "spool", tmp_path / "spool" / "boot.limits.json"
    code = f"""
import os, sys, time
from functools import partial
from pathlib import Path
from cluster.meter import guard
from cluster.meter.limit import Limits, Wish
from cluster.meter.nvml import PowerDial
from cluster.meter.spool import Spool
spool = Spool(Path(sys.argv[1]), "boot")
limits = Limits(spool.limits, PowerDial(), partial(guard.start, Path(sys.argv[1]), "boot", 0.3))
limits.follow({{("job-1", 0): Wish(("{GPU}",), 300)}}, time.monotonic())
print(limits.cap(("job-1", 0)).limit_w, PowerDial().limit_w("{GPU}"), flush=True)
time.sleep(2.5)
print(PowerDial().limit_w("{GPU}"), spool.limits.exists(), flush=True)
os.kill(os.getpid(), 9)
"""
    env = environment(standin, devices="1", control=str(tmp_path), limits="100,400,400")
    told = subprocess.run(
        [sys.executable, "-c", code, str(spool)], env=env, capture_output=True, text=True, check=False
    )
    assert (told.stdout.splitlines(), told.returncode) == (["300 300.0", "300.0 True"], -signal.SIGKILL), told.stderr
    until_s = time.monotonic() + 60
    while limits.exists():
        assert time.monotonic() < until_s, "the guard did nothing"
        time.sleep(0.1)
    set_w = [float(line.split()[1]) for line in (tmp_path / "limit-0").read_text().splitlines()]
    assert set_w == [300, 400], "not given back while the meter lived, and once after it"


def test_one_guard_watches_a_host_and_it_is_nobodys_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def guards() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(tmp_path) in (process.info["cmdline"] or ()) and guard.__file__ in process.info["cmdline"]:
                found.append(process)
        return found

    monkeypatch.setenv("LOWTIDE_RAY", "a token by which `lowtide down` finds what it ends")
    monkeypatch.setenv("RAY_JOB_ID", "1")
    spool = Spool(tmp_path, "boot")
    spool.limits.write_text('{"GPU-a": 400.0}')
    until_s = time.monotonic() + 60
    guard.start(tmp_path, "boot")
    while (free := guard._locked(tmp_path / "boot.guard")) is not None or len(guards()) != 1:
        if free is not None:
            os.close(free)
        assert time.monotonic() < until_s
        time.sleep(0.05)
    (alone,) = guards()
    guard.start(tmp_path, "boot")
    while guards() != [alone]:  # the second ends when it sees that there is one
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert not {"LOWTIDE_RAY", "RAY_JOB_ID"} & alone.environ().keys()
    assert alone.ppid() != os.getpid() and os.getsid(alone.pid) != os.getsid(0)
    spool.limits.unlink()
    alone.wait(timeout=60)
    spool.close()
