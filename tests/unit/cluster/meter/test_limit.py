"""Power limits are set while somebody wishes for them, and given back whatever ends: ranks, meters, drivers.
In: a host whose GPUs have limits that a test sets and refuses. Out: the limits that stand, and what owners are told.
The stand-in's tests below go through the real pynvml; the guard's are in test_guard.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.diagnose import _is_administrator
from cluster.meter import Owner
from cluster.meter.gpu import Unreadable, Unsupported
from cluster.meter.limit import Cap, Limits
from cluster.meter.meter import Meter
from tests.unit.cluster.meter.doubles import Bench, of, total_j
from tests.unit.cluster.meter.standin import GPU, environment, python


@dataclass
class SetDial:
    """GPUs of 100 to 500 W, each now at 400 W."""

    file: Path
    now_w: dict[str, float] = field(default_factory=lambda: {"GPU-a": 400.0, "GPU-b": 400.0})
    fixed: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    rounded_w: float = 0.0
    kept: list[bool] = field(default_factory=list)
    """Whether the file named the GPU each time that its limit was changed."""

    def limit_w(self, uuid: str) -> float:
        if uuid in self.lost:
            raise Unreadable("GPU is lost")
        return self.now_w[uuid]

    def range_w(self, uuid: str) -> tuple[float, float]:
        return 100.0, 500.0

    def set_limit_w(self, uuid: str, limit_w: float) -> None:
        if uuid in self.fixed:
            raise Unsupported("Insufficient Permissions")
        if uuid in self.lost:
            raise Unreadable("GPU is lost")
        self.kept.append(self.file.exists() and uuid in json.loads(self.file.read_text()))
        self.now_w[uuid] = limit_w + self.rounded_w


@dataclass
class Capped:
    """A metered host with power limits, and how often a guard was asked for."""

    bench: Bench
    dial: SetDial
    guards: int = 0

    def __post_init__(self) -> None:
        self.bench.crash()
        self.meter = self.new_meter()

    def new_meter(self) -> Meter:
        self.bench.limits = Limits(self.dial.file, self.dial, self.guard)
        self.meter = self.bench.meter = self.bench.new_meter()
        return self.meter

    def guard(self) -> None:
        self.guards += 1

    def register(self, rank: int, limit_w: int | None, *uuids: str, segment: str = "job-1") -> Cap:
        if rank + 7 not in self.bench.host.processes:
            self.bench.run_process(rank + 7)
        return self.meter.register(Owner("job", segment, rank, rank + 7, uuids, limit_w))

    def tick(self, duration_s: float = 1.0) -> None:
        self.bench.pass_s(duration_s)
        self.meter.tick()


@pytest.fixture
def capped(tmp_path: Path) -> Capped:
    return Capped(Bench(tmp_path), SetDial(tmp_path / "boot.limits.json"))


def test_a_limit_holds_from_registration_to_release_and_was_written_down_before(capped: Capped) -> None:
    assert capped.register(0, 300, "GPU-a") == Cap(300)
    assert capped.dial.now_w == {"GPU-a": 300, "GPU-b": 400}
    assert json.loads(capped.dial.file.read_text()) == {"GPU-a": 400}
    capped.tick()
    assert capped.meter.release("job-1", 0) == Cap(300)
    assert capped.dial.now_w == {"GPU-a": 400, "GPU-b": 400}
    assert not capped.dial.file.exists()
    assert capped.dial.kept == [True, True] and capped.guards == 1


def test_a_segment_that_wishes_for_no_limit_touches_none(capped: Capped) -> None:
    assert capped.register(0, None, "GPU-a") == Cap(None)
    capped.tick(60)
    assert capped.meter.release("job-1", 0) == Cap(None)
    assert capped.dial.kept == [] and not capped.dial.file.exists()


def test_a_dead_owners_limit_is_given_back_at_the_next_reading(capped: Capped) -> None:
    capped.register(0, 300, "GPU-a")
    capped.bench.host.processes[7].alive = False
    capped.tick()
    assert capped.dial.now_w["GPU-a"] == 400 and not capped.dial.file.exists()


def test_a_restarted_meter_keeps_the_limits_of_the_living_and_gives_back_those_of_the_dead(capped: Capped) -> None:
    capped.register(0, 300, "GPU-a")
    capped.register(1, 200, "GPU-b", segment="job-2")
    capped.bench.crash()
    capped.bench.host.processes[8].alive = False
    capped.bench.pass_s(5)
    capped.new_meter()
    assert capped.dial.now_w == {"GPU-a": 300, "GPU-b": 400}
    assert capped.guards == 2
    capped.tick()
    assert capped.meter.release("job-1", 0) == Cap(300)
    assert capped.dial.now_w == {"GPU-a": 400, "GPU-b": 400}


def test_a_meter_that_died_between_writing_and_setting_leaves_nothing(capped: Capped) -> None:
    capped.bench.crash()
    capped.dial.file.write_text('{"GPU-a": 400.0}')
    capped.new_meter()
    assert capped.dial.now_w["GPU-a"] == 400 and not capped.dial.file.exists()


def test_where_two_segments_share_a_gpu_the_highest_wish_counts_and_is_said(capped: Capped) -> None:
    assert capped.register(0, 200, "GPU-a") == Cap(200)
    assert capped.register(1, 300, "GPU-a", segment="job-2") == Cap(300)
    assert capped.dial.now_w["GPU-a"] == 300
    told = capped.meter.release("job-1", 0)
    assert told.limit_w is None and told.refused == "the limit of its GPUs changed from 200 W to 300 W meanwhile"
    capped.tick()
    late = capped.register(0, 200, "GPU-a", segment="job-3")
    assert late == Cap(300, "others hold its GPUs, too, with 300 W")
    assert capped.meter.release("job-2", 1) == Cap(300)
    assert capped.dial.now_w["GPU-a"] == 200
    capped.meter.release("job-3", 0)
    assert capped.dial.now_w["GPU-a"] == 400 and not capped.dial.file.exists()


def test_a_holder_without_a_wish_frees_the_gpu(capped: Capped) -> None:
    capped.register(0, 200, "GPU-a")
    capped.register(1, None, "GPU-a", segment="job-2")
    assert capped.dial.now_w["GPU-a"] == 400
    told = capped.meter.release("job-1", 0)
    assert told == Cap(None, "the limit of its GPUs changed from 200 W to no limit meanwhile")


@pytest.mark.parametrize(
    ("limit_w", "found_w", "refused"),
    [
        (90, 400, "GPU-a takes 100 to 500 W"),
        (501, 400, "GPU-a takes 100 to 500 W"),
        (300, 250, "GPU-a is limited to 250 W already"),
    ],
)
def test_what_cannot_or_must_not_be_set_is_refused(capped: Capped, limit_w: int, found_w: float, refused: str) -> None:
    capped.dial.now_w["GPU-a"] = found_w
    assert capped.register(0, limit_w, "GPU-a") == Cap(None, refused)
    capped.tick()
    assert capped.meter.release("job-1", 0) == Cap(None, refused)
    assert capped.dial.now_w["GPU-a"] == found_w and capped.dial.kept == []


def test_the_limit_that_stands_already_needs_no_rights(capped: Capped) -> None:
    capped.dial.fixed.add("GPU-a")
    assert capped.register(0, 400, "GPU-a") == Cap(400)
    assert capped.meter.release("job-1", 0) == Cap(400)


def test_no_rights_are_said_asked_for_once_and_leave_no_trace(capped: Capped) -> None:
    capped.dial.fixed.add("GPU-a")
    assert capped.register(0, 300, "GPU-a") == Cap(None, "GPU-a: Insufficient Permissions")
    assert not capped.dial.file.exists()
    capped.dial.fixed.clear()
    capped.tick()
    assert capped.dial.now_w["GPU-a"] == 400, "a segment that began without its limit ends without it"


def test_a_segment_of_which_one_gpu_refuses_runs_without_its_limit_on_all(capped: Capped) -> None:
    capped.register(0, 300, "GPU-a")
    capped.dial.fixed.add("GPU-b")
    told = capped.register(1, 300, "GPU-b")
    assert told == Cap(None, "GPU-b: Insufficient Permissions")
    assert capped.dial.now_w == {"GPU-a": 400, "GPU-b": 400}
    assert capped.meter.release("job-1", 0).limit_w is None


def test_a_rank_that_gives_its_wish_up_is_charged_on(capped: Capped) -> None:
    capped.register(0, 300, "GPU-a")
    capped.tick(2)
    assert capped.register(0, None, "GPU-a") == Cap(None)
    assert capped.dial.now_w["GPU-a"] == 400 and not capped.dial.file.exists()
    capped.tick(3)
    capped.meter.release("job-1", 0)
    assert total_j(of(capped.bench.spool.pull(), "GPU-a", 0)) == pytest.approx(500)


def test_a_board_that_takes_another_value_is_given_back(capped: Capped) -> None:
    capped.dial.rounded_w = 25.0
    told = capped.register(0, 300, "GPU-a")
    assert told == Cap(None, "GPU-a: set to 300 W, it says 325 W")


def test_a_slice_has_no_limit_of_its_own(capped: Capped) -> None:
    assert capped.register(0, 300, "MIG-3").refused == "MIG-3 is a slice, which has no limit of its own"


def test_a_host_without_nvml_refuses(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run_process(7)
    told = bench.meter.register(Owner("job", "job-1", 0, 7, ("GPU-a",), 300))
    assert told == Cap(None, "no NVML on this host")


def test_a_limit_that_the_driver_forgot_is_set_again(capped: Capped) -> None:
    capped.register(0, 300, "GPU-a")
    capped.dial.now_w["GPU-a"] = 400
    capped.tick(20)
    assert capped.dial.now_w["GPU-a"] == 300


def test_a_lost_gpu_is_given_back_once_it_answers(capped: Capped) -> None:
    capped.register(0, 300, "GPU-a")
    capped.dial.lost.add("GPU-a")
    capped.meter.release("job-1", 0)
    capped.tick(20)
    assert json.loads(capped.dial.file.read_text()) == {"GPU-a": 400}
    capped.dial.lost.clear()
    capped.tick(20)
    assert capped.dial.now_w["GPU-a"] == 400 and not capped.dial.file.exists()


HELD = {0: ("GPU-a",), 1: ("GPU-a",), 2: ("GPU-b",), 3: ("GPU-a", "GPU-b")}
HAPPENS = ("register", "register", "release", "die", "crash", "tick", "look", "lose", "find", "fix", "allow")


STEP = st.tuples(st.sampled_from(HAPPENS), st.integers(0, 3), st.sampled_from([None, 200, 200, 300, 300, 450]))


@settings(max_examples=60)
@given(st.lists(STEP, min_size=30, max_size=80))
def test_whatever_happens_a_gpu_is_limited_only_for_the_living_and_gets_back_what_it_had(
    steps: list[tuple[str, int, int | None]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = Capped(Bench(Path(name)), SetDial(Path(name) / "boot.limits.json"))
        for what, rank, limit_w in steps:
            happen(world, what, rank, limit_w)
            for uuid, now_w in world.dial.now_w.items():
                if uuid not in world.dial.lost | world.dial.fixed and now_w != 400:
                    assert json.loads(world.dial.file.read_text())[uuid] == 400, "what it had is written down"
        world.dial.lost.clear()
        world.dial.fixed.clear()
        for rank in HELD:
            happen(world, "release", rank, None)
        world.tick(20)
        assert set(world.dial.now_w.values()) == {400.0} and not world.dial.file.exists()
        world.meter.stop()


def happen(world: Capped, what: str, rank: int, limit_w: int | None) -> None:
    """One thing; ranks 0 and 1 are of one segment, the others of their own."""
    uuid, segment = ("GPU-a", "GPU-b")[rank % 2], f"job-{max(rank, 1)}"
    process = world.bench.host.processes.get(rank + 7)
    if what == "register" and (process is None or process.alive):
        told = world.register(rank, limit_w, *HELD[rank], segment=segment)
        assert told.limit_w in (limit_w, None) or told.refused, "a limit that is not the wish is said"
    elif what == "release":
        world.meter.release(segment, rank)
    elif what == "die" and process is not None:
        process.alive = False
    elif what == "crash":
        world.bench.crash()
        world.new_meter()
    elif what in ("tick", "look"):
        world.tick(1 if what == "tick" else 20)
    elif what in ("lose", "fix"):
        (world.dial.lost if what == "lose" else world.dial.fixed).add(uuid)
    elif what in ("find", "allow"):
        (world.dial.lost if what == "find" else world.dial.fixed).discard(uuid)


def test_nvml_sets_and_reads_limits_and_says_what_forbids_it(standin: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from cluster.meter.gpu import Unreadable
from cluster.meter.nvml import PowerDial
dial, control = PowerDial(), Path(sys.argv[1])
print(dial.limit_w("{GPU}"), dial.range_w("{GPU}"), dial.default_w("{GPU}"))
dial.set_limit_w("{GPU}", 250); print(dial.limit_w("{GPU}"), dial.default_w("{GPU}"))
(control / "fixed-0").touch()
for watts in (200, 50):
    try: dial.set_limit_w("{GPU}", watts)
    except Unreadable as fault: print(type(fault).__name__, fault)
    (control / "fixed-0").unlink(missing_ok=True)
"""
    env = environment(standin, devices="1", control=str(tmp_path), limits="100,400,300")
    assert python(code, env, str(tmp_path)).splitlines() == [
        "300.0 (100.0, 400.0) 300.0",
        "250.0 300.0",
        "Unsupported Insufficient Permissions",
        "Unreadable Invalid Argument",
    ]
    nowhere = environment(standin, devices="1", control=str(tmp_path), limits="none")
    asked = f"from cluster.meter.nvml import PowerDial; PowerDial().limit_w('{GPU}')"
    with pytest.raises(AssertionError, match="Not Supported"):
        python(asked, nowhere)


@pytest.mark.parametrize(
    ("limits", "set_w", "said"),
    [
        ("100,400,300", 0, "2 x NVIDIA A100-STANDIN, 100 to 400 W, 300 W now; "),
        ("100,400,300", 250, "1 x NVIDIA A100-STANDIN, 100 to 400 W, 250 W now (300 W by itself); 1 x "),
        ("none", 0, "2 x NVIDIA A100-STANDIN, none (Not Supported); "),
    ],
)
def test_doctor_says_between_which_limits_gpus_can_be_set(
    standin: Path, tmp_path: Path, limits: str, set_w: float, said: str
) -> None:
    if set_w:
        (tmp_path / "limit-0").write_text(f"1.0 {set_w}\n")
    code = "from cluster.diagnose import _limits; print(_limits().text)"
    env = environment(standin, devices="2", control=str(tmp_path), limits=limits)
    assert python(code, env).startswith(said)


@pytest.mark.parametrize(("effective", "may"), [("000001ffffffffff", True), ("00000000a80425fb", False)])
def test_who_may_set_limits_is_told_by_the_kernel(tmp_path: Path, effective: str, may: bool) -> None:
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{effective}\n")
    assert _is_administrator(tmp_path / "status") is may
