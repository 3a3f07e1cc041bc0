"""One worker of a segment, inside Ray Train: it finds its place, registers with its meter, and runs the job.
In: the order, from the segment's driver. Out: rank 0's outcome, as plain values for the driver.
`jobs.train.run` does the training; the driver makes the segment's result of the outcome.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError

from cluster.api import SegmentOrder
from cluster.began import began_at_s
from cluster.cap import is_refused, tell
from cluster.drain import DrainWatch
from cluster.link import Link, taken_over
from cluster.meter.limit import Cap
from cluster.order import TRACEBACK, code_path, number_of, read_order
from jobs.place import Outcome, Phase, Place
from jobs.spec.code import unpack
from jobs.spec.errors import Unavailable


def train(document: str) -> dict[str, Any]:
    """Run the order in `document` on this worker; what it returns is the same on every rank but for `parts_s`."""
    entered_at_s = time.time()
    order = read_order(document)
    folder = _working_dir(order)
    if folder is not None and order.spec.job != "script":
        os.chdir(folder)
    _take_secrets(order)
    place = _place(order)
    watch = RankWatch(order, place)
    try:
        outcome = _run(order, place, watch, folder)
        return _report(outcome, watch, entered_at_s)
    except Exception as fault:
        # Ray carries the exception to the driver without its traceback; an attribute travels along.
        fault.__dict__[TRACEBACK] = getattr(fault, "output", None) or traceback.format_exc()
        raise
    finally:
        watch.close()
        if folder is not None and place.local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _working_dir(order: SegmentOrder) -> Path | None:
    """A copy of the job's working folder on this host, for this segment alone; None where it has none."""
    if order.spec.working_dir is None:
        return None
    node = ray.get_runtime_context().get_node_id()[:12]
    folder = Path(tempfile.gettempdir()) / f"lowtide-code-{order.segment_id}-{node}"
    unpack(code_path(order.checkpoints), folder)
    return folder


def _run(order: SegmentOrder, place: Place, watch: RankWatch, folder: Path | None) -> Outcome:
    if order.spec.job == "script":
        from jobs import script

        return script.run(order.spec, place, watch, _seat(order, folder))
    from jobs.train import run

    return run(order.spec, place, watch)


def _report(outcome: Outcome, watch: RankWatch, entered_at_s: float) -> dict[str, Any]:
    return {
        "ended": "done" if outcome.done else watch.ends_as,
        "step": outcome.step,
        "steps": outcome.steps,
        "metrics": dict(outcome.metrics),
        "parts_s": dict(outcome.parts_s),
        "checkpoint_bytes": outcome.checkpoint_bytes,
        "moved_bytes": outcome.moved_bytes,
        "moved_from": outcome.moved_from,
        "began_at_s": began_at_s(),
        "entered_at_s": entered_at_s,
        "left_at_s": time.time(),
    }


def _place(order: SegmentOrder) -> Place:
    context = ray.train.get_context()
    return Place(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        device=_device(order),
        checkpoints=Path(order.checkpoints),
        restore_from=order.restore_from,
        segment_id=order.segment_id,
        also_at=order.also_at,
        mirror=order.mirror,
        start_step=order.start_step,
        segment=number_of(order.segment_id),
    )


def _seat(order: SegmentOrder, folder: Path | None) -> Any:
    """Where the script runs; its `env` came with Ray's runtime environment, but for what only the script may read."""
    from jobs.script import Seat

    assert order.spec.script is not None
    return Seat(
        node=ray.get_runtime_context().get_node_id(),
        folder=folder or Path(order.spec.script.folder or "."),
        gpus=tuple(str(gpu) for gpu in ray.get_gpu_ids()) if order.spec.workers.gpus else (),
        env={name: value for name, value in order.spec.env.items() if name.startswith("PYTHON")},
    )


def _take_secrets(order: SegmentOrder) -> None:
    """Put the secrets that the spec names into this worker's environment, and nowhere else."""
    if not order.spec.secrets:
        return
    from cluster.control import control_actor

    try:
        secrets = ray.get(control_actor().secrets.remote(order.segment_id), timeout=30)
    except RayError as fault:
        raise Unavailable(f"the secrets cannot be had: the control actor does not answer ({fault})") from None
    if secrets is None:
        raise Unavailable("the secrets went with the control actor's process; the next segment gets them anew")
    os.environ |= secrets


def _device(order: SegmentOrder) -> str:
    if on_cpu(order) or order.spec.job == "script":  # the GPU is the script's; its worker leaves it alone
        return "cpu"
    from cluster.rendezvous import device

    return device()


def on_cpu(order: SegmentOrder) -> bool:
    """Whether the workers train on CPUs: those without GPUs do, and those that DS_ACCELERATOR=cpu tells to."""
    return order.spec.workers.gpus == 0 or os.environ.get("DS_ACCELERATOR") == "cpu"


class RankWatch:
    """The jobs wing's Watch on one rank: phases go to the host's meter, and on rank 0 steps go to the control actor."""

    def __init__(self, order: SegmentOrder, place: Place) -> None:
        self._order, self._rank = order, place.rank
        self._trains = False
        self._link = Link(order.segment_id, order.desire, lambda: _taken_over(place)) if place.rank == 0 else None
        if self._link is not None:
            self._link.open()
        self._drain = DrainWatch(order.segment_id, order.desire) if place.local_rank == 0 else None
        if self._drain is not None:
            self._drain.open()
        self._meter = register(order, place.rank)

    def phase(self, name: Phase) -> None:
        """A phase begins on this rank."""
        if name == "train" and not self._trains:
            self._trains = True
            if is_refused(self._order):  # every rank has told by now: half a limit is no way to run
                self._order = replace(self._order, power_limit_w=None)  # and what was told of it stands
                register(self._order, self._rank)
        if self._meter is not None:
            self._meter.mark(self._order.segment_id, self._rank, name)
        if self._link is not None:
            self._link.phase(name)

    def note(self, text: str) -> None:
        """Something that the user shall know though training goes on; empty where all is well again."""
        if self._link is not None:
            self._link.note(text)

    def stop_wanted(self) -> bool:
        """Whether the job shall end at this boundary; for rank 0."""
        return self._link is not None and self._link.stop_wanted()

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        """A step ended."""
        if self._link is not None:
            self._link.stepped(step, steps, loss, trained_steps, trained_s)

    @property
    def ends_as(self) -> str:
        """The name of the end where the job is not done; rank 0 alone knows it."""
        return self._link.ends_as if self._link is not None else "paused"

    def close(self) -> None:
        """Say the last word, and have the meter cut this rank's last row."""
        if self._link is not None:
            self._link.close()
        if self._drain is not None:
            self._drain.close()
        release(self._meter, self._order, self._rank)


def _taken_over(place: Place) -> str:
    return taken_over(place.checkpoints, place.segment)


def register(order: SegmentOrder, rank: int) -> Any:
    """The host's meter, which knows from now on that this process is `rank`; None where it cannot be reached.

    Training goes on then: its seconds are unmetered, which the ledger shows, and never zero.
    """
    from cluster.meter.actor import host_meter
    from cluster.meter.owner import Owner

    try:
        meter = host_meter(order.spool, order.slot_s)
        owner = Owner(order.job_id, order.segment_id, rank, os.getpid(), _gpu_uuids(rank), order.power_limit_w)
        tell(order, rank, meter.register(owner))
    except (RayError, Unavailable, OSError) as fault:
        tell(order, rank, Cap(None, "its host's meter, which sets limits, does not answer"))
        print(f"lowtide: rank {rank} is unmetered, for this host's meter does not answer: {fault}", flush=True)
        return None
    return meter


def release(meter: Any, order: SegmentOrder, rank: int) -> None:
    """Have the meter cut the last row of a rank; a meter that is gone has cut it itself or never will."""
    if meter is None:
        return
    try:
        tell(order, rank, meter.release(order.segment_id, rank))
    except (RayError, Unavailable, OSError) as fault:
        print(f"lowtide: rank {rank} could not be released from its meter: {fault}", flush=True)


def _gpu_uuids(rank: int) -> tuple[str, ...]:
    """The UUIDs of the GPUs that Ray gave this worker alone; CUDA_VISIBLE_DEVICES names those of the whole group."""
    if rank < 0:
        return ()
    from cluster.meter.nvml import uuids_of

    return uuids_of(ray.get_gpu_ids())
