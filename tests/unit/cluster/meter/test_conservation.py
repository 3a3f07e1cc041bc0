"""Conservation: whatever owners, meters and counters do, ranks and idle sum to the host, and nothing comes twice.
In: random schedules of owners, phases, kills of owners and of the meter, resets, losses, refusals, acknowledgements.
Out: rows as a controller that crashes now and then would have committed them, against the hardware's own sums.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.api import MeterRow
from cluster.meter import Owner
from tests.unit.cluster.meter.doubles import START_S, WATTS, Bench, SetClock, SetCounter
from tests.unit.cluster.meter.powercap import two_sockets

PIDS = (7, 8, 9, 10, 11)
HELD = {7: ("GPU-a",), 8: ("GPU-a",), 9: ("MIG-3",), 10: ("GPU-b", "MIG-2"), 11: ()}
JOBS = {7: "tiny", 8: "tiny-2", 9: "tiny-2", 10: "tiny", 11: "tiny"}
RANGE_J = 262_143.0
SLICES = {"MIG-3": ("GPU-b", 3 / 7), "MIG-2": ("GPU-b", 2 / 7)}
STEPS = ("pass", "pass", "pass", "run", "start", "start", "register", "release", "die", "tick", "train", "save", "idle")
STEPS += ("crash", "restart", "pull", "pull and lose", "reset", "lose", "find")
STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 2**32 - 1))


@dataclass
class WatchedCounter(SetCounter):
    """A counter that remembers when it was read, and what it said."""

    clock: SetClock = field(default_factory=SetClock)
    readings: list[tuple[float, float | None]] = field(default_factory=list)

    def __call__(self) -> float:
        self.readings.append((self.clock.wall_s(), None if self.lost else self.energy_j))
        return super().__call__()

    def metered(self) -> tuple[float, float]:
        """Joules and seconds between readings that both succeeded, the later of which is not below the earlier."""
        known_j, known_s = [], []
        for (start_s, start_j), (end_s, end_j) in itertools.pairwise(self.readings):
            if start_j is not None and end_j is not None and end_j >= start_j:
                known_j.append(end_j - start_j)
                known_s.append(end_s - start_s)
        return math.fsum(known_j), math.fsum(known_s)


@dataclass
class World:
    """The host, what it really drew, and a controller that takes rows."""

    bench: Bench
    with_rapl: bool
    committed: dict[tuple[str, int], MeterRow] = field(default_factory=dict)
    drawn_j: dict[str, float] = field(default_factory=lambda: {"cpu": 0.0, "dram": 0.0, "GPU-a": 0.0, "GPU-b": 0.0})
    batches: list[list[MeterRow]] = field(default_factory=list)
    """As they were pulled, what came again included."""
    spoiled: set[str] = field(default_factory=set)
    """GPUs that were lost or reset, so that their rows may be unmetered in part."""

    def play(self, what: str, seed: int) -> None:
        """One thing that happens."""
        bench, chance = self.bench, random.Random(seed)
        pid = chance.choice(PIDS)
        if what == "pass":
            self.pass_s(chance.uniform(0.01, 3), chance)
        elif what == "idle":
            for _ in range(3):
                self.pass_s(chance.uniform(0.5, 20), chance)
                bench.meter.tick()
        elif what in ("run", "start") and bench.host.process(pid) is None:
            bench.meter.tick()  # so that no second of it is older than the last reading
            bench.run_process(pid)
        if what in ("start", "register"):
            held = HELD[pid] if bench.counters else ()
            bench.meter.register(Owner(JOBS[pid], f"{JOBS[pid]}-1", pid, pid, held))
        elif what == "release":
            bench.meter.release(f"{JOBS[pid]}-1", pid)
        elif what in ("train", "save"):
            bench.meter.mark(f"{JOBS[pid]}-1", pid, "train" if what == "train" else "checkpoint")
        elif what == "die" and pid in bench.host.processes:
            bench.host.processes[pid].alive = False
        elif what == "tick":
            bench.meter.tick()
        elif what in ("crash", "restart"):
            bench.crash() if what == "crash" else bench.meter.stop()
            bench.meter = bench.new_meter()
        elif what.startswith("pull"):
            self.pull(acknowledge=what == "pull")
        elif what in ("reset", "lose", "find") and bench.counters:
            self.hurt(what, chance.choice(("GPU-a", "GPU-b")))

    def hurt(self, what: str, uuid: str) -> None:
        counter = self.bench.counters[uuid]
        if what != "find":
            self.spoiled.add(uuid)
        if what == "reset":
            counter.energy_j = 0.0
        else:
            counter.lost = what == "lose"

    def pass_s(self, duration_s: float, chance: random.Random) -> None:
        """Time passes; live processes and others use the two cores, GPUs draw, counters move."""
        live = [pid for pid in PIDS if self.bench.host.process(pid) is not None]
        shares = [chance.random() for _ in (0, *live, "waiting")]
        busy = {pid: 2 * duration_s * share / sum(shares) for pid, share in zip((0, *live), shares, strict=False)}
        gpu_w = chance.uniform(20, 700)
        self.bench.pass_s(duration_s, busy, gpu_w)
        waiting_s = 2 * duration_s - sum(busy.values())
        for uuid in self.bench.counters:
            self.drawn_j[uuid] += gpu_w * duration_s
        if not self.with_rapl:
            self.drawn_j["cpu"] += WATTS.cores_j(sum(busy.values()), waiting_s)
            return
        powercap = self.bench.powercap
        assert powercap is not None
        for zone, device in ZONES.items():
            energy_uj = round(chance.uniform(1e6, 50e6) * duration_s)
            counter = powercap / zone / "energy_uj"
            counter.write_text(str((int(counter.read_text()) + energy_uj) % round(RANGE_J * 1e6)))
            self.drawn_j[device] += energy_uj / 1e6

    def pull(self, acknowledge: bool) -> None:
        """What a controller does; one that dies before it acknowledges is given the same rows again."""
        rows = self.bench.spool.pull()
        self.batches.append(rows)
        for row in rows:
            key = (row.device, row.seq)
            assert self.committed.setdefault(key, row) == row, "one key stands for two rows"
        if acknowledge:
            self.bench.meter.acknowledge(list(self.committed))

    def end(self) -> None:
        """Long enough for the idle account to pay back what was charged late; then everything is taken."""
        for name in self.bench.counters:
            self.hurt("find", name)
        for _ in range(3):
            self.pass_s(1.0, random.Random(1))
            self.bench.meter.tick()
        while self.bench.meter.owed_j > 0:
            self.pass_s(10.0, random.Random(2))
            self.bench.meter.tick()
        self.bench.meter.stop()
        self.pull(acknowledge=False)


ZONES = {"intel-rapl:0": "cpu", "intel-rapl:1": "cpu", "intel-rapl:0:2": "dram", "intel-rapl:1:2": "dram"}


def of_host(device: str) -> str:
    """The device whose sensor a row's figure comes from."""
    return SLICES[device][0] if device in SLICES else device


def sum_j(rows: Iterable[MeterRow]) -> float:
    return math.fsum(row.energy_j for row in rows if row.energy_j is not None)


def played(steps: list[tuple[str, int]], slot_s: float, with_rapl: bool, with_gpus: bool) -> World:
    """The world after all of it happened and everything was taken."""
    with tempfile.TemporaryDirectory() as name:
        powercap = two_sockets(Path(name) / "powercap", RANGE_J).folder if with_rapl else None
        clock = SetClock()
        counters = {uuid: WatchedCounter(clock=clock) for uuid in (("GPU-a", "GPU-b") if with_gpus else ())}
        bench = Bench(Path(name) / "spool", slot_s, clock, counters=counters, powercap=powercap, slices=dict(SLICES))
        world = World(bench, with_rapl)
        for what, seed in steps:
            world.play(what, seed)
        world.end()
        return world


STEPS_OF_A_HOST = st.lists(STEP, min_size=20, max_size=80)


@settings(max_examples=100)
@given(STEPS_OF_A_HOST, st.sampled_from([7.0, 60.0, 900.0]), st.booleans(), st.booleans())
def test_ranks_and_idle_are_the_host_and_no_replay_counts_twice(
    steps: list[tuple[str, int]], slot_s: float, with_rapl: bool, with_gpus: bool
) -> None:
    world = played(steps, slot_s, with_rapl, with_gpus)
    counters = world.bench.counters
    rows = list(world.committed.values())
    for device, drawn_j in world.drawn_j.items():
        told = [row for row in rows if of_host(row.device) == device]
        assert all(row.energy_j is None or row.energy_j >= -1e-9 for row in told), "never negative"
        if device in world.spoiled:
            assert 0 <= sum_j(told) <= drawn_j * (1 + 1e-9)
            if not any(what == "crash" for what, _ in steps):  # which forgets readings that no row is made of yet
                watched = counters[device]
                assert isinstance(watched, WatchedCounter)
                metered_j, metered_s = watched.metered()
                assert sum_j(told) == pytest.approx(metered_j, rel=1e-9, abs=1e-6)
                assert covered_s(told) == pytest.approx(metered_s, abs=1e-3)
        else:
            assert sum_j(told) == pytest.approx(drawn_j, rel=1e-9, abs=1e-6)
    assert_rows_are_apart(rows, slot_s)
    by_phase = {phase: sum_j(row for row in rows if row.phase == phase) for phase in {row.phase for row in rows}}
    assert math.fsum(by_phase.values()) == pytest.approx(sum_j(rows), rel=1e-9)


def covered_s(rows: Iterable[MeterRow]) -> float:
    """Seconds in which some row has a figure."""
    spans = sorted((row.start.timestamp(), row.end.timestamp()) for row in rows if row.energy_j is not None)
    total_s, reached_s = 0.0, 0.0
    for start_s, end_s in spans:
        total_s += max(0.0, end_s - max(start_s, reached_s))
        reached_s = max(reached_s, end_s)
    return total_s


def assert_rows_are_apart(rows: list[MeterRow], slot_s: float) -> None:
    """No two rows of one owner's device overlap; none is empty, longer than a minute, or across a slot's edge."""
    by_owner: dict[tuple[str, int | None], list[MeterRow]] = {}
    for row in rows:
        assert row.start < row.end
        assert (row.end - row.start).total_seconds() <= 60
        assert row.start.timestamp() >= START_S
        assert row.start.timestamp() // slot_s == (row.end.timestamp() - 2e-6) // slot_s
        by_owner.setdefault((row.device, row.rank), []).append(row)
    for (_, rank), mine in by_owner.items():
        mine.sort(key=lambda row: (row.start, row.end))
        if rank is None:
            assert all(before.end <= after.start for before, after in itertools.pairwise(mine))
    held = [row for row in rows if row.device == "GPU-a" and row.rank is not None and row.energy_j is not None]
    for idle in by_owner.get(("GPU-a", None), ()):
        assert all(idle.end <= row.start or row.end <= idle.start for row in held), "a whole GPU is held or idle"
