"""Where a worker stands, whom it tells, and what it hands back: the jobs wing's door, free of torch.
In: nothing. Out: the values Place and Outcome and the protocol Watch.
The cluster wing fills a Place and a Watch on every worker and calls `jobs.train.run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Phase = Literal["start", "restore", "train", "evaluate", "checkpoint", "stop"]


@dataclass(frozen=True)
class Place:
    """One worker's place in its group; every rank gets its own."""

    rank: int
    world_size: int
    local_rank: int
    device: str
    """`cpu`, or a CUDA device such as `cuda:0`."""
    checkpoints: Path
    """Folder of the job's checkpoints, the same for every rank."""
    restore_from: Path | str | None
    """Folder or URL that holds the newest checkpoint where that is another one; else None."""
    segment_id: str
    also_at: tuple[str, ...] = ()
    """Other folders and URLs where one as new or newer may lie, as after a lost segment."""
    mirror: str | None = None
    """URL where the zone keeps what is published in `checkpoints`; None where the folder is its own place."""
    start_step: int = 0
    """Where the newest checkpoint stands, as far as the controller knows."""
    segment: int = 0
    """It is the job's n-th: a later one fences it off (checkpoints.fence). 0 where nobody counts, as on bare ranks."""


class Watch(Protocol):
    """How the loop speaks to whoever runs it. Every method is called on every rank unless it says otherwise."""

    def phase(self, name: Phase) -> None:
        """A phase begins; the one before it ends."""

    def stop_wanted(self) -> bool:
        """Whether the job shall end at the next step boundary; asked on rank 0 only, must return at once."""

    def stepped(self, step: int, steps: int, loss: float | None, trained_steps: int, trained_s: float) -> None:
        """A step ended: `step` of `steps` are done, `trained_steps` of them here in `trained_s` seconds of training.

        `loss` is the newest global mean loss where it was read at this step, else None: reading it makes a GPU wait.
        """

    def note(self, text: str) -> None:
        """Something that the user shall know though training goes on: a checkpoint that could not be saved, say.

        Said on rank 0; empty where all is well again.
        """


@dataclass(frozen=True)
class Outcome:
    """How the run ended; the same on every rank but for `parts_s`."""

    done: bool
    """True where the last step was taken, False where a stop was wanted before."""
    step: int
    steps: int
    metrics: dict[str, float]
    """loss, holdout_loss, samples, tokens, parameters, flops_per_token: those that are known."""
    parts_s: dict[str, float]
    """Seconds by part: imports, build, restore, first_step, train, step_end, checkpoint, publish.

    `convert` is what making the checkpoint fit another width takes beyond the build, `copy` what saving beside the
    training holds it up; `checkpoint` and `publish` are of the save that ends the segment.
    `transfer` is bringing a checkpoint from elsewhere, `mirror` waiting until the zone's own place has the newest.
    `step.data`, `step.forward`, `step.backward`, `step.optimizer` and `step.communication` share out `train`; they are
    missing where too few steps were trained to sample one.
    """
    checkpoint_bytes: int
    """Size of the newest published checkpoint; 0 where none was written."""
    moved_bytes: int = 0
    """Bytes read from elsewhere, compressed or not, for the checkpoint that it began with; rank 0 knows them."""
    moved_from: str | None = None
    """The folder or URL that they came from; None where it lay here."""
