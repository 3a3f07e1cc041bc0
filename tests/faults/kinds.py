"""What can break, one function each: it strikes, and mends what a machine's owner would mend.
In: the Ground, the job that trains, a random generator. Out: one line that says what was done.
The campaign draws them; KINDS names them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from random import Random

import psutil

from tests.disk import fill
from tests.faults.ground import WORKERS, Ground, Seen
from tests.faults.nodes import ZONE

Strike = Callable[[Ground, Seen, Random], str]


class Missed(Exception):
    """What was to be struck had ended by itself: the round is fought again."""


class Impossible(Exception):
    """The machine does not let the fault happen."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    strike: Strike
    ends_segment: bool
    """Whether the segment that was struck cannot go on."""
    weight: int = 2


def worker_killed(ground: Ground, seen: Seen, rng: Random) -> str:
    rank = rng.choice([rank for rank in range(WORKERS) if rank in ground.owners(seen.segment)] or [0])
    return f"rank {rank} (pid {_kill_rank(ground, seen, rank)})"


def driver_killed(ground: Ground, seen: Seen, rng: Random) -> str:
    return f"pid {_kill_rank(ground, seen, -1)}"


def control_killed(ground: Ground, seen: Seen, rng: Random) -> str:
    return _kill_actor(ground, "ray::Control")


def meter_killed(ground: Ground, seen: Seen, rng: Random) -> str:
    return _kill_actor(ground, "ray::MeterActor")


def node_removed(ground: Ground, seen: Seen, rng: Random) -> str:
    name = _node_of(ground, seen, rng)
    ground.nodes.remove(name)
    away_s = rng.uniform(0, 12)
    time.sleep(away_s)
    ground.nodes.add(name)
    return f"node {name}, away for {away_s:.0f} s"


def node_drained(ground: Ground, seen: Seen, rng: Random) -> str:
    """A preemption: its notice, then its end. What was trained until the notice must be saved."""
    name, within_s = _node_of(ground, seen, rng), 60
    before = ground.segment(seen.segment)
    ground.nodes.drain(name, within_s)
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s and ground.segment(seen.segment).ended is None:
        time.sleep(0.2)
    ground.nodes.remove(name)
    after = ground.segment(seen.segment)
    ground.nodes.add(name)
    if after.ended not in ("moved", "done") or after.step < before.step:
        raise AssertionError(f"node {name} was drained and the segment ended as {after.ended} at step {after.step}")
    return f"node {name}; saved at step {after.step} ({after.ended})"


def controller_killed(ground: Ground, seen: Seen, rng: Random) -> str:
    """Several times in a row, at any line of a pass: also while it starts."""
    times = rng.randint(1, 3)
    for _ in range(times):
        ground.stop_serving()
        time.sleep(rng.uniform(0, 2))
        ground.serve()
        time.sleep(rng.uniform(0.5, 6))
    return f"{times} times"


def controller_stalled(ground: Ground, seen: Seen, rng: Random) -> str:
    """Stopped for longer than its lease, it wakes while another one controls."""
    stalled, epoch = ground.controller, ground.epoch()
    assert stalled is not None
    stalled.send_signal(signal.SIGSTOP)
    while _is_locked(ground):  # stopped in the middle of a transaction, it would stall whoever writes
        stalled.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        stalled.send_signal(signal.SIGSTOP)
    ground.serve()
    ground.until("the second controller takes over", ground.jobs[-1], lambda: ground.epoch() > epoch)
    stalled.send_signal(signal.SIGCONT)
    time.sleep(rng.uniform(2, 8))
    alive = stalled.poll() is None
    stalled.kill()
    stalled.wait()
    if not alive:
        raise AssertionError("the controller that woke has ended instead of waiting")
    if ground.epoch() != epoch + 1:
        raise AssertionError(f"the lease went on to epoch {ground.epoch()}")
    return f"epoch {epoch} woke under epoch {epoch + 1}"


def checkpoint_torn(ground: Ground, seen: Seen, rng: Random) -> str:
    """A byte of the newest checkpoint flips, then a worker dies: the one before it is in force."""
    job_id = ground.jobs[-1]

    def ended() -> bool:
        return ground.segment(seen.segment).ended is not None

    ground.until("a second checkpoint", job_id, lambda: len(ground.published(job_id)) > 1 or ended())
    _kill_rank(ground, seen, 0)
    newest = ground.site.checkpoints(job_id) / ground.published(job_id)[0]
    victim = rng.choice(sorted(path for path in newest.iterdir() if path.is_file() and path.stat().st_size > 0))
    with victim.open("r+b") as file:
        at = rng.randrange(victim.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return f"byte {at} of {newest.name}/{victim.name}"


def store_locked(ground: Ground, seen: Seen, rng: Random) -> str:
    for_s = rng.choice([3.0, 8.0, 36.0])
    with closing(sqlite3.connect(ground.site.state / "lowtide.db", isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(for_s)
        other.execute("ROLLBACK")
    return f"for {for_s:.0f} s"


def disk_full(ground: Ground, seen: Seen, rng: Random) -> str:
    """The disk of checkpoints, spool and store has no byte left for a while, then there is room again."""
    if not ground.small:
        raise Impossible("only root can give the campaign a small disk of its own")
    for_s = rng.uniform(3, 15)
    job_id = ground.jobs[-1]
    before = ground.published(job_id)[:1]
    filler = ground.site.state / "filler"
    try:
        filled = fill(filler)
        time.sleep(for_s)
        after = ground.published(job_id)[:1]
    finally:
        filler.unlink()
    return f"{filled >> 20} MiB taken for {for_s:.0f} s, newest checkpoint {before}, then {after}"


def head_restarted(ground: Ground, seen: Seen, rng: Random) -> str:
    """Ray is gone with its table of jobs and every node, and comes back knowing nothing."""
    ground.nodes.lose()
    away_s = rng.uniform(0, 8)
    time.sleep(away_s)
    ground.nodes.start()
    return f"after {away_s:.0f} s"


def gpus_taken(ground: Ground, seen: Seen, rng: Random) -> str:
    """A worker dies, and others take GPUs before its job is back: it waits with its reason."""
    code = (
        "import ray, time\n"
        f"ray.init(address={ground.nodes.address!r}, log_to_driver=False, namespace='others')\n"
        "class Holder:\n    def ready(self): return True\n"
        f"options = dict(num_cpus=0, num_gpus=1, label_selector={{'carbon-zone': {ZONE!r}}})\n"
        "held = [ray.remote(Holder).options(**options).remote() for _ in range(2)]\n"
        "ray.get([h.ready.remote() for h in held])\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    others = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", text=True
    )
    try:
        time.sleep(2)  # their claim stands before the worker's end
        _kill_rank(ground, seen, 0)
        assert others.stdout is not None
        if others.stdout.readline().strip() != "held":
            raise AssertionError("the others got no GPUs")
        job_id = ground.jobs[-1]
        reason = ground.until(
            "the job says what it waits for",
            job_id,
            lambda: (text := ground.site.job(job_id).reason).startswith("waits for room") and text,
        )
    finally:
        others.kill()
        others.communicate()
    return f"it said: {reason}"


KINDS = {
    "worker killed": Kind(worker_killed, True, 3),
    "driver killed": Kind(driver_killed, True),
    "control actor killed": Kind(control_killed, False),
    "meter killed": Kind(meter_killed, False),
    "node removed": Kind(node_removed, True, 3),
    "node drained": Kind(node_drained, True),
    "controller killed": Kind(controller_killed, False, 3),
    "controller stalled": Kind(controller_stalled, False, 1),
    "checkpoint torn": Kind(checkpoint_torn, True),
    "store locked": Kind(store_locked, False),
    "disk full": Kind(disk_full, False),
    "head restarted": Kind(head_restarted, True),
    "GPUs taken": Kind(gpus_taken, True, 1),
}


def _is_locked(ground: Ground) -> bool:
    with closing(sqlite3.connect(ground.site.state / "lowtide.db", isolation_level=None, timeout=0.5)) as store:
        try:
            store.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        store.execute("ROLLBACK")
        return False


def _kill_rank(ground: Ground, seen: Seen, rank: int) -> int:
    """Kill a rank of the segment; its process id. Raises Missed where it has ended by itself."""
    pid = ground.owners(seen.segment).get(rank)
    if pid is None or ground.segment(seen.segment).ended is not None:
        raise Missed
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        raise Missed from None
    return pid


def _kill_actor(ground: Ground, title: str) -> str:
    killed = ground.nodes.processes(title)
    if not killed:
        raise Missed
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return f"pid {', '.join(str(process.pid) for process in killed)}"


def _node_of(ground: Ground, seen: Seen, rng: Random) -> int:
    """The node of one of the segment's ranks. Raises Missed where they have ended."""
    pids = [pid for rank, pid in sorted(ground.owners(seen.segment).items()) if rank >= 0]
    found = ground.nodes.node_of(rng.choice(pids)) if pids else None
    if found is None:
        raise Missed
    return found
