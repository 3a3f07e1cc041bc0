"""Where the campaign is fought: a site, its cluster of several nodes, a controller process, and jobs that train.
In: a folder. Out: what runs at this moment and with which processes; what all of it must come back to.
kinds.py breaks it, audit.py looks at what it left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from jobs.spec import Unavailable
from orchestrator.store.jobs import ENDED_STATES
from orchestrator.store.schema import Lease, Segment
from tests import disk
from tests.faults.nodes import ZONE, Nodes, alike
from tests.integration.command import LLAMA, LOWTIDE, Lowtide
from tests.nvml import build

Value = TypeVar("Value")

SHAPES = ("square", "sawtooth", "constant")
"""Power curves of the GPUs, one for each node."""
WORKERS = 2
STEPS = 900
DISK_BYTES = 256 << 20
RECOVERS_S = 900.0
"""What no recovery should ever need, on a machine that others use too."""


@dataclass(frozen=True)
class Seen:
    """A job's segment and its step, as the newest pass saw them."""

    segment: str
    step: int


class Ground:
    """One site for one campaign."""

    def __init__(self, folder: Path) -> None:
        if build.compiler() is None:
            raise Unavailable("no C compiler for the NVML stand-in; install gcc")
        env = build.environment(build.build(folder), devices=str(len(SHAPES)), shapes=",".join(SHAPES))
        self.nodes = Nodes(alike(len(SHAPES)), env, folder / "nodes.log")
        zones = {ZONE: {"provider": "demo", "gpus": len(SHAPES)}}
        self.small = self._small(folder / "state")
        """Whether the state's disk is the campaign's own, so that it may be filled."""
        self.site = Lowtide(folder, None, ray=self.nodes.address, slot="10s", renew_within="150s", zones=zones)
        self.log = folder / "serve.log"
        self.controller: subprocess.Popen[bytes] | None = None
        self.jobs: list[str] = []

    @staticmethod
    def _small(folder: Path) -> bool:
        try:
            disk.mount(folder, DISK_BYTES)
        except Unavailable:
            return False
        return True

    # --- what runs ---------------------------------------------------------------------------------------------

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a controller; it becomes the campaign's own."""
        with self.log.open("ab") as log:
            command = [LOWTIDE, "--site", str(self.site.site_file), "serve"]
            env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
            self.controller = subprocess.Popen(command, cwd=self.site.folder, env=env, stdout=log, stderr=log)
        return self.controller

    def stop_serving(self, number: int = signal.SIGKILL) -> None:
        """End the controller by this signal."""
        if self.controller is not None:
            self.controller.send_signal(number)
            self.controller.wait()
            self.controller = None

    def spec(self, name: str) -> Path:
        """The job of the campaign: small, with dropout so that the random state matters, always saving."""
        return self.site.spec(
            name,
            model={"config": {**LLAMA, "attention_dropout": 0.1}},
            training={"steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3},
            workers={"count": WORKERS, "gpus": 1, "cpus": 1},
            env={"DS_ACCELERATOR": "cpu"},
            checkpoint={"every": "2s", "keep": 2},
        )

    def submit(self) -> str:
        """Submit one more job of the campaign."""
        name = f"job-{len(self.jobs) + 1}"
        self.site.run("submit", self.spec(name))
        self.jobs.append(name)
        return name

    def document(self) -> dict[str, Any]:
        """The newest job's spec as the store has it."""
        return dict(self.site.job(self.jobs[-1]).spec)

    def current(self) -> str:
        """The job that has not ended; another one is submitted where there is none."""
        if self.jobs and self.site.job(self.jobs[-1]).state not in ENDED_STATES:
            return self.jobs[-1]
        return self.submit()

    # --- what is seen of it ------------------------------------------------------------------------------------

    def training(self, job_id: str) -> Seen | None:
        """The segment that trains."""
        segment = self.site.training(job_id)
        return Seen(segment.id, segment.step) if segment is not None else None

    def segment(self, segment_id: str) -> Segment:
        """A segment as the store has it."""
        return next(s for s in self.site.segments(segment_id.rpartition("-")[0]) if s.id == segment_id)

    def done(self, job_id: str) -> bool:
        """Whether the job is through; AssertionError where it ended otherwise."""
        state = self.site.job(job_id).state
        if state in ENDED_STATES and state != "done":
            raise AssertionError(f"{job_id} is {state}\n{self.site.story(job_id)}")
        return state == "done"

    def until(self, what: str, job_id: str, seen: Callable[[], Value], within_s: float = RECOVERS_S) -> Value:
        """The first value of `seen` that is true; AssertionError where none comes, or the job fails."""
        deadline_s = time.monotonic() + within_s
        while not (value := seen()):
            self.done(job_id)
            if time.monotonic() > deadline_s:
                reason = self.site.job(job_id).reason
                raise AssertionError(f"{what}: not within {within_s:.0f} s ({reason})\n{self.site.story(job_id)}")
            time.sleep(0.2)
        return value

    def owners(self, segment_id: str) -> dict[int, int]:
        """Process ids of a segment's ranks (-1: its driver), as its meter knows them."""
        found: dict[int, int] = {}
        for path in (self.site.state / "spool").glob("*.jsonl"):
            with suppress(OSError, ValueError, IndexError):
                state = json.loads(path.read_text().strip().splitlines()[-1])["state"]
                owners = [entry["owner"] for entry in state["owners"]]
                found |= {each["rank"]: each["pid"] for each in owners if each["segment_id"] == segment_id}
        return {rank: pid for rank, pid in found.items() if psutil.pid_exists(pid)}

    def published(self, job_id: str) -> list[str]:
        """The names of the checkpoints in force, the newest first."""
        pointer = self.site.checkpoints(job_id) / "published.json"
        return list(json.loads(pointer.read_text())["published"]) if pointer.exists() else []

    def epoch(self) -> int:
        """The lease's epoch."""
        with self.site.store.read() as session:
            lease = session.get(Lease, 1)
            return lease.epoch if lease is not None else 0

    def close(self) -> None:
        """End every process."""
        if self.controller is not None:
            with suppress(ProcessLookupError):
                self.controller.send_signal(signal.SIGCONT)
            self.stop_serving()
        self.nodes.end()
        self.site.store.close()
        if self.small:
            disk.unmount(self.site.state)
