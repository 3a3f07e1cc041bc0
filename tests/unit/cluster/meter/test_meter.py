"""A meter charges ranks for what they drew, in adjacent rows that sum to the host's energy.
In: a host whose readings the test sets. Out: rows in a real spool.
Integration tests run the same meter in Ray on the NVML stand-in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.api import MeterRow
from cluster.meter import Owner
from tests.unit.cluster.meter.doubles import START_S, Bench, of, total_j


def owner(rank: int, pid: int, *uuids: str) -> Owner:
    return Owner("job", "job-1", rank, pid, uuids)


def assert_adjacent(rows: list[MeterRow]) -> None:
    for before, after in zip(rows, rows[1:], strict=False):
        assert before.end == after.start, (before, after)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_rank_is_charged_for_its_cpu_time_where_it_holds_no_gpu_and_the_rest_is_idle(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7))
    bench.pass_s(10, busy={7: 4, 0: 1})
    bench.meter.release("job-1", 0)
    bench.meter.stop()
    rows = bench.spool.pull()
    assert total_j(of(rows, "GPU-a", None)) == total_j(of(rows, "GPU-b", None)) == pytest.approx(1000)
    assert total_j(of(rows, "cpu", 0)) == pytest.approx(40)
    assert total_j(of(rows, "cpu", None)) == pytest.approx(10 + 3 * 15)


def test_a_row_ends_where_a_phase_begins(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    bench.pass_s(3)
    bench.meter.mark("job-1", 0, "train")
    bench.pass_s(4, gpu_w=300)
    bench.meter.mark("job-1", 0, "checkpoint")
    bench.pass_s(1)
    bench.meter.release("job-1", 0)
    rows = of(bench.spool.pull(), "GPU-a", 0)
    assert [(row.phase, row.energy_j) for row in rows] == [("start", 300), ("train", 1200), ("checkpoint", 100)]
    assert_adjacent(rows)


def test_no_row_crosses_a_slot_edge_or_is_longer_than_a_minute(tmp_path: Path) -> None:
    bench = Bench(tmp_path, slot_s=42.0)
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    for _ in range(100):
        bench.pass_s(3.3)
        bench.meter.tick()
    bench.meter.stop()
    for device, rank in (("GPU-a", 0), ("cpu", 0), ("cpu", None), ("GPU-b", None)):
        rows = of(bench.spool.pull(), device, rank)
        assert_adjacent(rows)
        for row in rows:
            assert (row.end - row.start).total_seconds() <= 60
            assert row.start.timestamp() // 42 == (row.end.timestamp() - 1e-6) // 42
        assert total_j(of(rows, "GPU-a", 0)) == pytest.approx(33_000 if device == "GPU-a" else 0)


def test_idle_rows_come_at_most_once_a_minute(bench: Bench) -> None:
    for _ in range(600):
        bench.pass_s(1)
        bench.meter.tick()
    assert len(of(bench.spool.pull(), "GPU-a", None)) <= 11


def test_a_gpu_that_two_ranks_hold_is_split_equally(bench: Bench) -> None:
    for rank, pid in ((0, 7), (1, 8)):
        bench.run_process(pid)
        bench.meter.register(owner(rank, pid, "GPU-a"))
    bench.pass_s(10)
    bench.meter.release("job-1", 0)
    bench.pass_s(5)
    bench.meter.release("job-1", 1)
    assert total_j(of(bench.spool.pull(), "GPU-a", 0)) == pytest.approx(500)
    assert total_j(of(bench.spool.pull(), "GPU-a", 1)) == pytest.approx(1000)


def test_a_lost_gpu_is_unmetered_and_never_zero(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    for lost in (False, True, True, False, False):
        bench.counters["GPU-a"].lost = lost
        bench.pass_s(2)
        bench.meter.tick()
    bench.meter.release("job-1", 0)
    rows = of(bench.spool.pull(), "GPU-a", 0)
    # The first reading after a loss is a new baseline, so its interval is unmetered too.
    assert [((row.end - row.start).total_seconds(), row.energy_j) for row in rows] == [(2, 200), (6, None), (2, 200)]


def test_a_counter_that_falls_is_a_new_baseline(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    bench.pass_s(2)
    bench.meter.tick()
    bench.counters["GPU-a"].energy_j = 0.0
    bench.meter.tick()
    bench.pass_s(2)
    bench.counters["GPU-a"].energy_j = 3.0
    bench.meter.tick()
    bench.counters["GPU-a"].energy_j = 1.0
    bench.pass_s(2, gpu_w=0)
    bench.meter.tick()
    bench.pass_s(2)
    bench.meter.release("job-1", 0)
    assert [row.energy_j for row in of(bench.spool.pull(), "GPU-a", 0)] == [200 + 3, None, 200]


def test_a_gpu_that_the_meter_does_not_see_is_unmetered(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "MIG-x"))
    bench.pass_s(5)
    bench.meter.release("job-1", 0)
    assert [row.energy_j for row in of(bench.spool.pull(), "MIG-x", 0)] == [None]


def test_a_dead_process_is_released_with_what_was_read_last(bench: Bench) -> None:
    process = bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    bench.pass_s(3, busy={7: 2})
    bench.meter.tick()
    process.alive = False
    bench.pass_s(1)
    bench.meter.tick()
    bench.pass_s(5)
    bench.meter.tick()
    bench.meter.stop()
    rows = bench.spool.pull()
    assert total_j(of(rows, "cpu", 0)) == pytest.approx((2 * 10 + 4 * 3 + 2 * 3) / 2), "by its GPU, half of the host's"
    assert total_j(of(rows, "GPU-a", 0)) == pytest.approx(400)
    assert total_j(of(rows, "GPU-a", None)) == pytest.approx(500)


def test_cpu_time_before_registration_is_charged_as_start_and_paid_back_by_the_idle_account(bench: Bench) -> None:
    bench.run_process(7)
    bench.pass_s(20, busy={7: 15})
    bench.meter.tick()
    bench.meter.register(owner(0, 7))
    bench.meter.mark("job-1", 0, "train")
    bench.pass_s(60)
    bench.meter.stop()
    rows = bench.spool.pull()
    (start,) = of(rows, "cpu", 0)[:1]
    assert (start.phase, start.start.timestamp(), start.energy_j) == ("start", START_S, pytest.approx(150))
    assert total_j(row for row in rows if row.device == "cpu") == pytest.approx(bench.host_cpu_j())


def test_a_process_that_served_another_segment_is_not_charged_for_it_again(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7))
    bench.pass_s(10, busy={7: 9})
    bench.meter.release("job-1", 0)
    bench.meter.register(Owner("other", "other-1", 0, 7))
    bench.pass_s(10, busy={7: 1})
    bench.meter.release("other-1", 0)
    assert total_j(row for row in bench.spool.pull() if row.job_id == "other") == pytest.approx(10)


def test_registering_twice_changes_nothing(bench: Bench) -> None:
    bench.run_process(7)
    for _ in range(2):
        bench.meter.register(owner(0, 7, "GPU-a"))
        bench.pass_s(5, busy={7: 5})
    bench.meter.release("job-1", 0)
    assert total_j(of(bench.spool.pull(), "GPU-a", 0)) == pytest.approx(1000)
    assert total_j(of(bench.spool.pull(), "cpu", 0)) == pytest.approx((10 * 10 + 10 * 3) / 2)


def test_a_small_step_of_the_wall_clock_tears_no_rows_apart(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    for step_s in (0.0, 2.0, -3.0, 0.5, 0.0):
        bench.clock.wall_offset_s += step_s
        for _ in range(30):
            bench.pass_s(1)
            bench.meter.tick()
    bench.meter.release("job-1", 0)
    rows = of(bench.spool.pull(), "GPU-a", 0)
    assert_adjacent(rows)
    assert all(row.start < row.end for row in rows)
    assert total_j(rows) == pytest.approx(15_000)
    assert rows[-1].end.timestamp() == pytest.approx(bench.clock.wall_s(), abs=0.01)


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
@pytest.mark.parametrize("dies", [False, True])
def test_a_clock_set_by_an_hour_loses_no_joule_and_counts_none_twice(bench: Bench, step_s: float, dies: bool) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    for _ in range(100):
        bench.pass_s(1)
        bench.meter.tick()
    bench.clock.wall_offset_s += step_s
    for n in range(100):
        bench.pass_s(1)
        if dies and n == 50:
            bench.crash()
            bench.meter = bench.new_meter()
        bench.meter.tick()
    bench.meter.release("job-1", 0)
    rows = bench.spool.pull()
    assert total_j(of(rows, "GPU-a", 0)) == pytest.approx(200 * 100)
    assert total_j(of(rows, "GPU-b", None)) <= 200 * 100
    assert len({(row.device, row.seq) for row in rows}) == len(rows)
    assert all(row.start < row.end for row in rows)
    newest = max((row for row in rows if row.device == "GPU-a"), key=lambda row: row.seq)
    assert newest.end.timestamp() == pytest.approx(bench.clock.wall_s(), abs=1)


def test_a_restarted_meter_goes_on_where_the_killed_one_stopped(bench: Bench) -> None:
    bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    bench.meter.mark("job-1", 0, "train")
    for _ in range(90):
        bench.pass_s(1, busy={7: 1})
        bench.meter.tick()
    bench.crash()
    bench.pass_s(30, busy={7: 10})
    meter = bench.new_meter()
    bench.pass_s(10, busy={7: 5})
    meter.release("job-1", 0)
    rows = bench.spool.pull()
    for device, energy_j in (("GPU-a", 13_000), ("cpu", bench.host_cpu_j() / 2)):
        mine = of(rows, device, 0)
        assert_adjacent(mine)
        assert total_j(mine) == pytest.approx(energy_j)
        assert mine[-1].end.timestamp() - START_S == pytest.approx(130, abs=0.001)
        seqs = sorted(row.seq for row in rows if row.device == device)
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_an_owner_that_died_while_no_meter_ran_shows_an_unmetered_minute_at_most(bench: Bench) -> None:
    process = bench.run_process(7)
    bench.meter.register(owner(0, 7, "GPU-a"))
    bench.pass_s(10)
    bench.meter.mark("job-1", 0, "train")
    bench.crash()
    process.alive = False
    bench.pass_s(3600)
    bench.new_meter()
    rows = of(bench.spool.pull(), "GPU-a", 0)
    assert total_j(row for row in rows if row.energy_j is not None) == pytest.approx(1000)
    unmetered = [row for row in rows if row.energy_j is None]
    assert sum((row.end - row.start).total_seconds() for row in unmetered) == pytest.approx(60)
    assert_adjacent(rows)
