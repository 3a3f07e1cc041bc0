"""Whether the kernel was killing for memory where a process lived: both versions of control groups, and a real kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.meter.memory import RECENT_S, Kills
from cluster.meter.owner import Owner
from tests.unit.cluster.meter.doubles import Bench

FILES = {1: "memory/a/b/memory.oom_control", 2: "a/b/memory.events"}
SAID = {1: "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n", 2: "low 0\nhigh 0\nmax 9\noom 3\noom_kill {}\n"}
GROUPS = {1: "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n", 2: "0::/a/b\n"}


class Host:
    """A host of which the test sets what its kernel counts."""

    def __init__(self, folder: Path, version: int, file: str | None = None) -> None:
        self.processes, self.groups = folder / "proc", folder / "groups"
        self._file, self._said = self.groups / (file or FILES[version]), SAID[version]
        self._file.parent.mkdir(parents=True)
        (self.processes / "7").mkdir(parents=True)
        (self.processes / "7" / "cgroup").write_text(GROUPS[version])
        self.kill(0)

    def kill(self, count: int) -> None:
        self._file.write_text(self._said.format(count))


@pytest.mark.parametrize("version", [1, 2])
def test_a_kill_counts_for_a_while_from_when_it_is_seen(tmp_path: Path, version: int) -> None:
    host = Host(tmp_path, version)
    host.kill(4)
    kills = Kills(host.processes, host.groups)
    kills.watch(7)
    kills.look(10.0)
    assert kills.near(7, 10.0) is False, "earlier ones are others'"
    host.kill(5)
    kills.look(11.0)
    assert kills.near(7, 11.0) is True
    kills.look(11.0 + RECENT_S)
    assert kills.near(7, 11.0 + RECENT_S) is True
    assert kills.near(7, 12.0 + RECENT_S) is False
    kills.forget(7)
    assert kills.near(7, 11.0) is None


@pytest.mark.parametrize(
    ("version", "file"), [(1, "memory/memory.oom_control"), (2, "memory.events"), (2, "a/memory.events")]
)
def test_a_container_that_sees_only_its_own_groups_counts_these(tmp_path: Path, version: int, file: str) -> None:
    host = Host(tmp_path, version, file)
    kills = Kills(host.processes, host.groups)
    kills.watch(7)
    host.kill(1)
    kills.look(1.0)
    assert kills.near(7, 1.0) is True


@pytest.mark.parametrize("gone", ["proc/7/cgroup", "groups/a/b/memory.events"])
def test_where_nothing_counts_nobody_can_tell(tmp_path: Path, gone: str) -> None:
    host = Host(tmp_path, 2)
    (tmp_path / gone).unlink()
    kills = Kills(host.processes, host.groups)
    kills.watch(7)
    kills.look(1.0)
    assert kills.near(7, 1.0) is None


def test_the_meter_tells_of_ranks_that_went_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path, 2)
    monkeypatch.setattr("cluster.meter.charging.Kills", lambda: Kills(host.processes, host.groups))
    (tmp_path / "spool").mkdir()
    bench = Bench(tmp_path / "spool")
    processes = [bench.run_process(pid) for pid in (7, 8)]
    for rank, pid in enumerate((7, 8)):
        bench.meter.register(Owner("job", "job-1", rank, pid))
    bench.pass_s(1)
    host.kill(1)
    for process in processes:
        process.alive = False
    assert bench.meter.starved("job-1") == {0: True}, "of the other nobody can tell"
    assert bench.meter.starved("job-2") == {}


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 64 MB."""
    folder = Path("/sys/fs/cgroup/memory/lowtide-test")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(64 << 20))
    except OSError as fault:
        pytest.skip(f"no control group can be made here: {fault}")
    yield folder
    folder.rmdir()


def test_the_kernel_counts_a_real_kill(group: Path) -> None:
    code = "import sys\nsys.stdin.readline()\nheld = []\nwhile True: held.append(bytearray(1 << 20))"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        (group / "cgroup.procs").write_text(str(process.pid))
        kills = Kills()
        kills.watch(process.pid)
        kills.look(0.0)
        assert kills.near(process.pid, 0.0) is False
        process.communicate("go\n", timeout=120)
        assert process.returncode == -9
    kills.look(1.0)
    assert kills.near(process.pid, 1.0) is True
