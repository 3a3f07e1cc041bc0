"""RAPL by a powercap folder of real files: what is counted, wraps, refusals, and what ranks are charged.
In: counters that the test moves. Out: joules of packages and memory; rows labelled `rapl` or `estimated`.
Conservation over random schedules is tested with the meter.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.meter import Owner, rapl
from cluster.meter.clock import Instant
from cluster.meter.rapl import Rapl, RaplEnergy
from tests.unit.cluster.meter.doubles import Bench, of, total_j
from tests.unit.cluster.meter.powercap import Powercap, two_sockets


class Watch:
    """Takes by a clock of its own."""

    def __init__(self, powercap: Powercap) -> None:
        self.rapl = Rapl.of(powercap.folder)
        self._passed_s = 0.0
        self.after(0)

    def after(self, passed_s: float) -> RaplEnergy:
        self._passed_s += passed_s
        self.rapl.read(Instant(0, self._passed_s))
        return self.rapl.take()


def test_packages_and_memory_are_counted_once_and_what_lies_inside_or_around_is_not(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path)
    watch = Watch(powercap)
    for zone in powercap.total_j:
        powercap.draw(zone, 7.0)
    assert watch.after(0.1) == RaplEnergy(pytest.approx(14.0), pytest.approx(14.0))
    assert [zone.name for zone in rapl.zones(tmp_path)] == [
        "package-0",
        "package-0/dram",
        "package-1",
        "package-1/dram",
    ]


def test_a_wrap_is_bridged_and_a_counter_that_was_set_back_is_not(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path)
    watch = Watch(powercap)
    powercap.draw("intel-rapl:0", 150.0)  # from 900 J to 50 J
    assert watch.after(0.2).packages_j == pytest.approx(150.0)
    powercap.draw("intel-rapl:1", 40.0)
    assert watch.after(0.2).packages_j == pytest.approx(40.0)
    powercap.total_j["intel-rapl:1"] = 0.0
    powercap.draw("intel-rapl:1", 500.0)  # 560 J in 0.2 s, had it wrapped
    assert watch.after(0.2) == RaplEnergy(None, 0.0)
    powercap.draw("intel-rapl:1", 20.0)
    assert watch.after(0.2).packages_j == pytest.approx(20.0)


def test_after_so_long_that_it_may_have_wrapped_twice_nothing_is_known(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path)
    watch = Watch(powercap)
    powercap.draw("intel-rapl:0", 30.0)
    assert watch.after(60.0) == RaplEnergy(None, None)


def test_one_package_that_is_refused_leaves_the_sum_unknown_until_it_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    powercap = two_sockets(tmp_path)
    watch = Watch(powercap)
    powercap.refuse("intel-rapl:1")
    assert [watch.after(0.1).packages_j for _ in range(2)] == [None, None]
    assert caplog.text.count("package-1 cannot be read") == 1
    powercap.allow("intel-rapl:1")
    assert watch.after(0.1).packages_j is None
    powercap.draw("intel-rapl:1", 5.0)
    assert watch.after(0.1).packages_j == pytest.approx(5.0)


def test_a_counter_that_disappears_is_unknown_and_memory_without_counters_is_too(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path)
    powercap.remove("intel-rapl:0:2")
    watch = Watch(powercap)
    powercap.draw("intel-rapl:0", 5.0)
    assert watch.after(0.1) == RaplEnergy(pytest.approx(5.0), None)
    powercap.remove("intel-rapl:0")
    assert watch.after(0.1).packages_j is None


@contextmanager
def no_root() -> Iterator[None]:
    """Root may read any file, so it is somebody else for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_the_advice_names_what_is_read_or_the_line_that_opens_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # not one of pytest's, which are its user's alone
        assert "no RAPL here" in rapl.advice(folder / "none")
        two_sockets(folder)
        assert rapl.advice(folder) == "reads package-0, package-0/dram, package-1, package-1/dram"
        for counter in folder.glob("*/energy_uj"):
            counter.chmod(0o400 if os.geteuid() == 0 else 0)
        with no_root():
            assert "as root: echo 'z /sys/class/powercap/intel-rapl*/energy_uj" in rapl.advice(folder)
            watch = Watch(Powercap(folder))
            assert watch.after(0.1) == RaplEnergy(None, None)


# --- in a meter -----------------------------------------------------------------------------------------------------


def owner(rank: int, pid: int) -> Owner:
    return Owner("job", "job-1", rank, pid)


def draw(powercap: Powercap, packages_j: float, memory_j: float = 0.0) -> None:
    for socket in (0, 1):
        powercap.draw(f"intel-rapl:{socket}", packages_j / 2)
        powercap.draw(f"intel-rapl:{socket}:2", memory_j / 2)


def test_a_rank_gets_its_share_of_what_the_packages_drew_and_the_rest_is_idle(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path / "powercap")
    bench = Bench(tmp_path / "spool", powercap=powercap.folder)
    bench.run_process(7)
    bench.meter.register(owner(0, 7))
    bench.pass_s(0.1, busy={7: 0.1})  # of two cores: one busy at weight 10, one waiting at weight 3
    draw(powercap, 26.0, 13.0)
    bench.meter.release("job-1", 0)
    bench.meter.stop()
    rows = bench.spool.pull()
    assert {row.source for row in rows if row.device in ("cpu", "dram")} == {"rapl"}
    assert {row.uuid for row in rows if row.device == "dram"} == {None}
    for device, energy_j in (("cpu", 26.0), ("dram", 13.0)):
        assert total_j(of(rows, device, 0)) == pytest.approx(energy_j * 10 / 13)
        assert total_j(row for row in rows if row.device == device) == pytest.approx(energy_j)


def test_where_rapl_falls_silent_its_own_watts_go_on_as_an_estimate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    powercap = two_sockets(tmp_path / "powercap")
    bench = Bench(tmp_path / "spool", powercap=powercap.folder)
    bench.run_process(7)
    bench.meter.register(owner(0, 7))
    for refused in (False, False, True, True, False, False):
        if refused and not (powercap.folder / "intel-rapl:1" / "energy_uj").is_dir():
            powercap.refuse("intel-rapl:1")
        elif not refused and (powercap.folder / "intel-rapl:1" / "energy_uj").is_dir():
            powercap.allow("intel-rapl:1")
        bench.pass_s(0.1, busy={7: 0.2})
        draw(powercap, 4.0)
        bench.meter.tick()
    bench.meter.release("job-1", 0)
    cpu = of(bench.spool.pull(), "cpu", 0)
    # The first reading after a silence is a new baseline, so its interval is estimated too.
    assert [(row.source, row.energy_j) for row in cpu] == [
        ("rapl", pytest.approx(8.0)),
        ("estimated", pytest.approx(12.0)),
        ("rapl", pytest.approx(4.0)),
    ]


def test_memory_without_a_counter_is_estimated_by_its_size_beside_the_packages(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path / "powercap")
    for socket in (0, 1):
        powercap.remove(f"intel-rapl:{socket}:2")
    bench = Bench(tmp_path / "spool", powercap=powercap.folder)
    for _ in range(3):
        bench.pass_s(0.1)
        powercap.draw("intel-rapl:0", 3.0)
        bench.meter.tick()
    bench.meter.stop()
    memory = of(bench.spool.pull(), "dram", None)
    assert {row.source for row in memory} == {"estimated"}
    assert total_j(memory) == pytest.approx(0.4 * 64 * 0.3)


def test_a_restarted_meter_goes_on_from_the_counters(tmp_path: Path) -> None:
    powercap = two_sockets(tmp_path / "powercap")
    bench = Bench(tmp_path / "spool", powercap=powercap.folder)
    bench.run_process(7)
    bench.meter.register(owner(0, 7))
    bench.pass_s(0.2, busy={7: 0.3})
    draw(powercap, 10.0)
    bench.crash()
    meter = bench.new_meter()
    bench.pass_s(0.1, busy={7: 0.2})
    draw(powercap, 5.0)
    meter.release("job-1", 0)
    meter.stop()
    rows = [row for row in bench.spool.pull() if row.device == "cpu"]
    assert {row.source for row in rows} == {"rapl"}
    assert total_j(rows) == pytest.approx(15.0)


def test_a_host_without_rapl_says_nothing_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert Watch(Powercap(tmp_path)).after(1.0) == RaplEnergy(None, None)
    assert caplog.text == ""
