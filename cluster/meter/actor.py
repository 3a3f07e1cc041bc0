"""The meter as a Ray actor: one per host, whatever nodes and jobs share it, found by name.
In: a spool folder and the site's slot. Out: a handle for workers; rows of all hosts for the controller.
It outlives workers and segments; a restart goes on from the spool's state.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError, RaySystemError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.api import MeterRow, Phase
from cluster.meter import earlier, guard, nvml
from cluster.meter.estimate import CoreWatts
from cluster.meter.limit import Cap, Limits
from cluster.meter.meter import Meter
from cluster.meter.owner import Owner
from cluster.meter.rapl import Rapl
from cluster.meter.spool import Key, Spool
from jobs.spec import Unavailable

log = logging.getLogger(__name__)

Value = TypeVar("Value")

NAMESPACE = "lowtide"
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 30.0
SHORT_TIMEOUT_S = 5.0
"""For what is good to know, and nothing waits for."""
_GONE = (RayActorError, ActorUnschedulableError)
LOCK_WAIT_S = 10.0
"""How long a new meter waits for the spool's lock: the time in which a killed one's process goes away."""


class MeterActor:
    """Runs the host's Meter in its process; Ray restarts it if its thread fails."""

    def __init__(self, spool: str, slot_s: float) -> None:
        self._folder = Path(spool)
        kept = Spool(self._folder, host_boot(), wait_s=LOCK_WAIT_S)
        self._meter = Meter(
            kept,
            slot_s,
            nvml.devices(),
            watts=CoreWatts.from_environment(),
            node=socket.gethostname(),
            rapl=Rapl.of(),
            find=nvml.find,
            limits=Limits(kept.limits, nvml.PowerDial(), partial(guard.start, Path(spool), host_boot())),
        )
        self._meter.start(on_fault=lambda: os._exit(1))

    def ready(self, slot_s: float) -> int:
        """The process id, once the meter runs; takes the site's slot over."""
        self._meter.set_slot(slot_s)
        return os.getpid()

    def register(self, owner: Owner) -> Cap:
        """See Meter.register."""
        return self._meter.register(owner)

    def mark(self, segment_id: str, rank: int, phase: Phase) -> None:
        """See Meter.mark."""
        self._meter.mark(segment_id, rank, phase)

    def release(self, segment_id: str, rank: int) -> Cap:
        """See Meter.release."""
        return self._meter.release(segment_id, rank)

    def starved(self, segment_id: str) -> dict[int, bool]:
        """See Meter.starved."""
        return self._meter.starved(segment_id)

    def pull(self) -> list[MeterRow]:
        """See Meter.pull; and what earlier boots of this host left."""
        return earlier.pull(self._folder, host_boot()) + self._meter.pull()

    def acknowledge(self, keys: list[Key]) -> None:
        """See Meter.acknowledge."""
        self._meter.acknowledge(keys)

    def acknowledge_earlier(self, keys: dict[str, list[Key]]) -> None:
        """See earlier.acknowledge."""
        earlier.acknowledge(self._folder, host_boot(), keys)

    def retire(self) -> None:
        """Write everything and let go of the spool, for the meter of another version to take over."""
        self._meter.stop()


class MeterHandle:
    """What a worker asks of its host's meter. A meter that went away is found, or started, again."""

    def __init__(self, spool: str, slot_s: float) -> None:
        self._spool = spool
        self._slot_s = slot_s
        self._actor = _start(spool, slot_s)

    def register(self, owner: Owner) -> Cap:
        """Charge `owner` from now on; returns when it is so. Unavailable where the meter does not answer."""
        cap: Cap = self._ask(lambda actor: actor.register.remote(owner))
        return cap

    def mark(self, segment_id: str, rank: int, phase: Phase) -> None:
        """The rank enters a phase; returns at once."""
        self._actor.mark.remote(segment_id, rank, phase)

    def release(self, segment_id: str, rank: int) -> Cap:
        """The last cut of a rank; its rows are on disk when this returns. Unavailable where no meter answers."""
        cap: Cap = self._ask(lambda actor: actor.release.remote(segment_id, rank))
        return cap

    def _ask(self, call: Callable[[Any], Any]) -> Any:
        try:
            return _get(call(self._actor), ANSWER_TIMEOUT_S)
        except _GONE:  # its node left while others of this host live on; owners are in the spool's state
            self._actor = _start(self._spool, self._slot_s)
            return _get(call(self._actor), ANSWER_TIMEOUT_S)


def host_meter(spool: str, slot_s: float) -> MeterHandle:
    """The meter of this host for `spool`, started if none runs. Unavailable where Ray or the spool cannot be had."""
    return MeterHandle(spool, slot_s)


def starved(spool: str, segment_id: str) -> dict[int, bool]:
    """What the meters of all hosts say of a segment's ranks that are gone; see Meter.starved."""
    try:
        live = {boot: actor for boot, actor in _live(spool).items() if hasattr(actor, "starved")}
        said = _ask_all(live, lambda actor: actor.starved.remote(segment_id), SHORT_TIMEOUT_S)
    except (RayError, Unavailable) as fault:
        log.warning("no meter says whether memory ran out: %s", fault)
        return {}
    return {rank: starved for _, answer in said for rank, starved in answer.items()}


def collect(spool: str) -> list[MeterRow]:
    """Rows that the meters of `spool` hold on all hosts, oldest first; they stay there until acknowledged.

    A host that does not answer is left for the next time. Where no meter of this host lives, its spool is read here.
    """
    live = _live(spool)
    rows = [row for _, answer in _ask_all(live, lambda actor: actor.pull.remote()) for row in answer]
    if host_boot() not in live:
        left = _leftover(spool)
        if left is not None:
            rows += left.pull()
            left.close()
        rows += earlier.pull(Path(os.path.abspath(spool)), host_boot())
    return sorted(rows, key=lambda row: (row.start, row.host_boot, row.device, row.seq))


def acknowledge(spool: str, rows: Sequence[MeterRow]) -> None:
    """Tell the meters that `rows` are committed. One that does not answer gives its rows again: they are known."""
    keys: dict[str, list[Key]] = {}
    for row in rows:
        keys.setdefault(row.host_boot, []).append((row.device, row.seq))
    live = _live(spool)
    refs = {boot: actor for boot, actor in live.items() if boot in keys}
    by_actor = {id(actor): keys[boot] for boot, actor in refs.items()}
    for _ in _ask_all(refs, lambda actor: actor.acknowledge.remote(by_actor[id(actor)])):
        pass
    gone = {boot: keys[boot] for boot in keys.keys() - live.keys() - {host_boot()}}
    if gone:
        # Hosts that died and came back under another boot: each meter knows what lies in its folder.
        _ask_all(live, lambda actor: actor.acknowledge_earlier.remote(gone))
        if host_boot() not in live:
            earlier.acknowledge(Path(os.path.abspath(spool)), host_boot(), gone)
    if host_boot() in keys and host_boot() not in live:
        left = _leftover(spool)
        if left is not None:
            left.acknowledge(keys[host_boot()])
            left.close()


@lru_cache
def host_boot() -> str:
    """The id of this host's boot; Unavailable off Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError as fault:
        raise Unavailable(f"this host has no boot id ({fault}); meters need Linux") from None


@lru_cache
def version() -> str:
    """The release and a digest of the meter's code: a meter of other code is another meter."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return f"{importlib.metadata.version('lowtide')}+{code.hexdigest()[:8]}"


def _prefix(spool: str) -> str:
    return f"meter-{hashlib.sha256(os.path.abspath(spool).encode()).hexdigest()[:8]}-"


def _start(spool: str, slot_s: float) -> Any:
    """The actor of this host, version and spool; one of another version is asked to retire first."""
    if not ray.is_initialized():
        raise Unavailable("no Ray to run the meter in; call ray.init first")
    name = f"{_prefix(spool)}{host_boot()}-{version()}"
    for other in _names(spool):
        if other.startswith(f"{_prefix(spool)}{host_boot()}-") and other != name:
            _retire(other)
    for last in (False, True):
        actor = _named(name, spool, slot_s)
        try:
            _get(actor.ready.remote(slot_s), START_TIMEOUT_S)
            return actor
        except _GONE as fault:
            if last:
                line = str(fault).strip().splitlines()[-1]
                raise Unavailable(f"the meter of this host did not start: {line}") from None
            # It was bound to a Ray node that is gone, while another node of this host lives.
            ray.kill(actor)
    raise AssertionError("the second try returns or raises")


def _named(name: str, spool: str, slot_s: float) -> Any:
    """The actor of this name, created on this node where there is none."""
    node_id = ray.get_runtime_context().get_node_id()
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 3,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }
    return ray.remote(MeterActor).options(**options).remote(os.path.abspath(spool), slot_s)


def _retire(name: str) -> None:
    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
        _get(actor.retire.remote(), ANSWER_TIMEOUT_S)
        ray.kill(actor)
    except (ValueError, RayActorError, Unavailable) as fault:
        log.warning("the meter %s did not retire: %s", name, fault)


def _names(spool: str) -> list[str]:
    try:
        actors = ray.util.list_named_actors(all_namespaces=True)
    except RayError as fault:
        raise Unavailable(f"Ray does not say which meters live: {fault}") from None
    return [
        actor["name"]
        for actor in actors
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(_prefix(spool))
    ]


def _live(spool: str) -> dict[str, Any]:
    """Meters of `spool` by host boot."""
    live = {}
    for name in _names(spool):
        boot = name[len(_prefix(spool)) :][:36]
        try:
            live[boot] = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:  # it ended since it was listed
            continue
    return live


def _ask_all(
    actors: dict[str, Any], call: Callable[[Any], Any], timeout_s: float = ANSWER_TIMEOUT_S
) -> list[tuple[str, Any]]:
    """Answers by host boot; a meter that fails or is late is left out, with a warning."""
    refs = {call(actor): boot for boot, actor in actors.items()}
    if not refs:
        return []
    ready, late = ray.wait(list(refs), num_returns=len(refs), timeout=timeout_s)
    answers = []
    for ref in ready:
        try:
            answers.append((refs[ref], ray.get(ref)))
        except RayError as fault:
            log.warning("the meter of host %s failed: %s", refs[ref], fault)
    for ref in late:
        log.warning("the meter of host %s does not answer; its rows come later", refs[ref])
    return answers


def _leftover(spool: str) -> Spool | None:
    """The spool of this host where a meter that is gone left one."""
    folder = Path(os.path.abspath(spool))
    if not (folder / f"{host_boot()}.jsonl").exists():
        return None
    try:
        return Spool(folder, host_boot())
    except Unavailable:  # a meter starts just now, or one of another cluster lives: it has the rows
        return None


def _get(ref: Any, timeout_s: float) -> Any:
    """Ray's answer; one that is late, or no connection, becomes Unavailable."""
    try:
        return ray.get(ref, timeout=timeout_s)
    except GetTimeoutError:
        raise Unavailable(f"the meter of this host did not answer within {timeout_s:.0f} s") from None
    except RaySystemError as fault:
        raise Unavailable(f"Ray does not answer: {fault}") from None
