"""What a rank answers its script: whether a checkpoint is due, where to save it, whether to end there.
In: the script's questions; every rank's, for they are asked together. Out: rank 0's word to all; published checkpoints.
jobs.script.run takes the questions from the line, and looks at the process between them.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.checkpoints import checkpoint
from jobs.checkpoints.fence import blamed
from jobs.pace import Action, Clock, Parts
from jobs.place import Phase, Place, Watch
from jobs.spec import JobFault, JobSpec, Unavailable

if TYPE_CHECKING:
    from jobs.checkpoints.shelf import Shelf
    from jobs.group import Group

_PHASES: dict[str, Phase] = {"restore": "restore", "evaluate": "evaluate", "checkpoint": "checkpoint"}
_FAR = 1 << 40
"""Steps to go where the script does not say how many there are."""


class Answers:
    """One rank's side of the questions, and how far the script is by them."""

    def __init__(self, spec: JobSpec, place: Place, watch: Watch, group: Group, shelf: Shelf, parts: Parts) -> None:
        self._place, self._watch, self._group, self._shelf, self._parts = place, watch, group, shelf, parts
        self._clock = Clock(watch, spec.checkpoint.every_s, asks=place.rank == 0)
        self._phase: Phase = "start"
        self._phase_at_s = time.monotonic()
        self._since: tuple[float, int] | None = None
        """The clock and the step from which on the time of the next steps counts."""
        self._resumed_at = 0
        self.step = self.saved_step = self.trained_steps = self.checkpoint_bytes = 0
        self.steps: int | None = None
        self.trained_s = 0.0
        self.metrics: dict[str, float] = {}
        self._partial: Path | None = None
        """Where the script saves."""
        self.left_at_s: float | None = None
        """When the checkpoint of a pause was published: the script ends by itself then."""

    def go_on(self, found: checkpoint.Published) -> None:
        """The script is given this checkpoint."""
        self._resumed_at = self.step = self.saved_step = found.step
        self.metrics = dict(found.meta["metrics"])
        self.checkpoint_bytes = found.size_bytes

    @property
    def asked(self) -> bool:
        """Whether the script has asked for a checkpoint in this segment."""
        return self._since is not None

    @property
    def saves(self) -> bool:
        """Whether the script was told to save, and has not said that it has."""
        return self._phase == "checkpoint"

    def stands(self) -> str:
        """What it would go on from."""
        return f"step {self.saved_step} is saved" if self.saved_step else "nothing is saved"

    def drop(self) -> None:
        """Remove what the script has begun to save, for it only fills the disk."""
        if self._partial is not None:
            shutil.rmtree(self._partial, ignore_errors=True)

    def take(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a question; None to what is only told."""
        ask = message["ask"]
        if ask == "due":
            return self._due(message)
        if ask == "save":
            return self._prepare(int(message["step"]))
        if ask == "publish":
            return self._publish(int(message["step"]))
        if ask == "phase":
            self.mark(_PHASES.get(message["name"], "train"))
        elif ask == "step":
            self.step = max(self.step, int(message["step"]))
        return None

    def mark(self, phase: Phase) -> None:
        """Enter a phase; the times of the first ones are parts of the start."""
        if phase == self._phase:
            return
        now_s = time.monotonic()
        if self._phase in ("start", "restore"):
            self._parts.add("build" if self._phase == "start" else "restore", now_s - self._phase_at_s)
        self._phase, self._phase_at_s = phase, now_s
        self._watch.phase(phase)

    def exchange(self, ask: str, step: int, **told: Any) -> list[dict[str, Any]]:
        """What every rank says where all of them ask the same; JobFault on all of them where they do not."""
        everyone: list[dict[str, Any]] = self._group.each(lambda: {"ask": ask, "step": step, **told})
        first = everyone[0]
        for rank, other in enumerate(everyone):
            if (other["ask"], other["step"]) != (first["ask"], first["step"]):
                raise JobFault(
                    f"script: rank 0 {_said(first)} while rank {rank} {_said(other)}: every rank must ask lowtide the "
                    "same after the same step"
                )
        return everyone

    def _due(self, told: dict[str, Any]) -> dict[str, Any]:
        """Go on, save, or save and stop: rank 0's word; and how many steps later to ask again."""
        step, self.steps = int(told["step"]), told["steps"] or self.steps
        if not self.asked and step <= self._resumed_at and self._place.rank == 0:
            print(f"lowtide: the script is at step {step} though step {self._resumed_at} is saved: does it resume?")
        action, distance = self._wanted(step)
        everyone = self.exchange("due", step, action=action, distance=distance, loss=told["loss"])
        action, distance = everyone[0]["action"], everyone[0]["distance"]
        self._count(step)
        self._clock.agreed(step, distance)
        losses = [each["loss"] for each in everyone if each["loss"] is not None]
        if losses:
            self.metrics["loss"] = sum(losses) / len(losses)
        self.metrics |= {name: float(told[name]) for name in ("samples", "tokens") if told[name] is not None}
        loss = self.metrics["loss"] if losses else None
        self._watch.stepped(step, self.steps or 0, loss, self.trained_steps, self.trained_s)
        self.mark("train" if action == "go" else "checkpoint")
        return {"action": action, "distance": distance}

    def _wanted(self, step: int) -> tuple[Action, int]:
        """Rank 0's word after `step` steps, and for how many steps it holds."""
        if self._place.rank != 0:
            return "go", 1
        action, distance = self._clock.decide(step, self.steps or step + _FAR)
        done = self._finished(step) or (action == "checkpoint" and not self._has_room())
        return ("go" if done else action), distance

    def _has_room(self) -> bool:
        """Whether the disk takes another checkpoint; where it does not, the script goes on without one."""
        self._shelf.settle()
        try:
            checkpoint.make_room(self._place.checkpoints, self.checkpoint_bytes)
        except Unavailable as fault:
            self._tell(fault)
            return False
        return True

    def _prepare(self, step: int) -> dict[str, Any]:
        """A fresh folder for the checkpoint of this step."""
        folder, segment = self._place.checkpoints, self._place.segment
        partial = checkpoint.partial_of(folder, step, segment)
        meta = {
            "step": step,
            "segment": self._place.segment_id,
            "metrics": self.metrics,
            "essentials": {"job": "script", "workers.count": self._place.world_size},
        }

        def begin() -> None:
            self._shelf.check()
            self._shelf.settle()
            checkpoint.clear(folder, segment)
            checkpoint.begin(partial, meta)

        self.exchange("save", step)
        if self.asked and self._phase == "train":
            self._count(step)
        self.mark("checkpoint")
        self._group.first(begin)
        self._partial = partial
        return {"folder": str(partial)}

    def _publish(self, step: int) -> dict[str, Any]:
        """Seal what the ranks wrote, and publish it; whether the script shall end now is rank 0's word."""
        folder, segment = self._place.checkpoints, self._place.segment
        partial = checkpoint.partial_of(folder, step, segment)
        stop = self._place.rank == 0 and not self._finished(step) and self._watch.stop_wanted()
        stop = self.exchange("publish", step, stop=stop)[0]["stop"]
        shares = self._group.each(lambda: self._sealed(partial))
        self._parts.add("checkpoint", time.monotonic() - self._phase_at_s)
        with self._parts.time("publish"):
            sealed = {name: file for share in shares for name, file in share.items()}
            self.checkpoint_bytes = self._group.first(lambda: self._shelf.publish(step, sealed)).size_bytes
        self._partial = None
        self.step = self.saved_step = step
        self._clock.saved()
        self._since = (time.monotonic(), step)
        if stop:
            self._parts.add("step_end", self._clock.step_end_s() - (time.monotonic() - self._phase_at_s))
            self.left_at_s = time.monotonic()
        self.mark("stop" if stop else "train")
        return {"stop": stop}

    def _sealed(self, partial: Path) -> dict[str, checkpoint.Sealed]:
        with blamed(self._place.checkpoints, self._place.segment):
            return checkpoint.seal(partial, self._place.rank, self._place.world_size)

    def _finished(self, step: int) -> bool:
        """Whether this is the last step: the script ends by itself then."""
        return self.steps is not None and step >= self.steps

    def _count(self, step: int) -> None:
        """Count the steps since the clock was looked at last, and the time that they took."""
        now_s = time.monotonic()
        if self._since is not None:
            self.trained_steps += max(0, step - self._since[1])
            self.trained_s += now_s - self._since[0]
        self._since = (now_s, step)
        self.step = max(self.step, step)

    def _tell(self, fault: Exception) -> None:
        print(f"lowtide: no checkpoint was saved after step {self.step} ({fault})", flush=True)
        self._watch.note(f"no checkpoint was saved after step {self.step} ({fault}); step {self.saved_step} stands")


def _said(told: dict[str, Any]) -> str:
    step = told["step"]
    return {
        "due": f"asks whether a checkpoint is due after step {step}",
        "save": f"saves step {step}",
        "publish": f"has saved step {step}",
        "end": "has ended",
    }[told["ask"]]
