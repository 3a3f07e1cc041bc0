"""CPU time of real process trees, and watts that the environment sets.
In: processes that this test starts. Out: CPU seconds that never fall, children included.
The split into ranks and idle is tested with the meter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.meter import Owner
from cluster.meter.estimate import CoreWatts
from cluster.meter.process import LocalHost
from jobs.spec import InputError
from tests.unit.cluster.meter.doubles import Bench, total_j

SPIN = "import time\nwhile time.process_time() < {spent_s}: pass\n"
PARENT = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {(SPIN.format(spent_s=0.4) + 'input()')!r}], stdin=-1)\n"
    "print(flush=True); input(); child.communicate(b'\\n'); print(flush=True); input()"
)


def test_a_tree_counts_its_children_alive_and_dead_and_never_twice() -> None:
    host = LocalHost()
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None and parent.stdout is not None
    with parent.stdin, parent.stdout:
        parent.stdout.readline()
        process = host.process(parent.pid)
        assert process is not None
        process.adopt(host.children([parent.pid])[parent.pid])
        readings = [process.cpu_s()]
        while (reading := process.cpu_s()) is not None and reading < 0.4:
            readings.append(reading)
        parent.stdin.write("\n")
        parent.stdin.flush()
        parent.stdout.readline()  # the child has ended and its parent has waited for it
        readings += [process.cpu_s(), process.cpu_s()]
    known = [reading for reading in readings if reading is not None]
    assert known == sorted(known)
    assert 0.4 <= known[-1] < 0.4 + 0.4, "the child's seconds are counted once"
    parent.wait()
    assert process.cpu_s() is None
    assert host.process(parent.pid) is None


def test_a_registered_child_is_not_part_of_its_parents_tree() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = os.getpid()
    host = LocalHost()
    assert child.pid in host.children([me])[me]
    assert child.pid not in host.children([me, child.pid])[me]
    child.communicate(b"\n")


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = LocalHost().process(child.pid)
    assert process is not None and process.cpu_s() is not None
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.cpu_s() is None
    child.wait()


def test_watts_come_from_the_environment_and_a_bad_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_CPU_W_PER_CORE", "6.5")
    assert CoreWatts.from_environment() == CoreWatts(6.5, 3.0)
    for bad in ("ten", "-1", "nan", "inf"):
        monkeypatch.setenv("LOWTIDE_CPU_W_PER_CORE", bad)
        with pytest.raises(InputError, match="LOWTIDE_CPU_W_PER_CORE"):
            CoreWatts.from_environment()


def test_a_meter_needs_no_ray() -> None:
    code = "import sys, cluster.meter, cluster.meter.meter; print('ray' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == "False"


def test_the_processors_power_is_shared_by_cores_with_memory_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_CPU_TDP_W", "320")
    assert CoreWatts.from_environment(cores=64) == CoreWatts(5.0, pytest.approx(1.5), 0.4, dram_apart=True)
    monkeypatch.setenv("LOWTIDE_DRAM_W_PER_GIB", "0.25")
    monkeypatch.setenv("LOWTIDE_CPU_IDLE_W_PER_CORE", "1")
    assert CoreWatts.from_environment(cores=64) == CoreWatts(5.0, 1.0, 0.25, dram_apart=True)
    monkeypatch.setenv("LOWTIDE_CPU_W_PER_CORE", "5")
    with pytest.raises(InputError, match="LOWTIDE_CPU_TDP_W and LOWTIDE_CPU_W_PER_CORE are both set"):
        CoreWatts.from_environment()


def test_memory_is_estimated_by_its_size_where_the_cores_watts_leave_it_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watts=CoreWatts(5.0, 1.5, 0.25, dram_apart=True))
    bench.run_process(7)
    bench.meter.register(Owner("job", "job-1", 0, 7))
    bench.pass_s(10, busy={7: 20})
    bench.meter.mark("job-1", 0, "train")
    bench.pass_s(10)
    bench.meter.stop()
    memory = [row for row in bench.spool.pull() if row.device == "dram"]
    assert {row.source for row in memory} == {"estimated"}
    assert total_j(memory) == pytest.approx(0.25 * 64 * 20)
    assert total_j(row for row in memory if row.rank == 0) == pytest.approx(0.25 * 64 * 10), "while it used all cores"


def test_memory_is_part_of_the_default_watts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_s(10)
    bench.meter.stop()
    assert {row.device for row in bench.spool.pull()} == {"cpu", "GPU-a", "GPU-b"}
