"""Resuming: what a checkpoint must share with the run that takes it up.
In: the spec, the place and the text's digest; a published checkpoint. Out: the checkpoint, or why it does not fit.
Next, jobs.engine loads it.
"""

from __future__ import annotations

from typing import Any

from jobs import checkpoint
from jobs.place import Place
from jobs.spec import InputError, JobSpec


def find(place: Place, keep: int) -> checkpoint.Published | None:
    """The newest checkpoint of the job, brought over first where it lies elsewhere. Call it on one rank."""
    checkpoint.clear(place.checkpoints)
    if place.restore_from is not None:
        return checkpoint.bring(place.restore_from, place.checkpoints, keep)
    return checkpoint.newest(place.checkpoints)


def essentials(spec: JobSpec, world_size: int, digest: str) -> dict[str, Any]:
    """What must not change between segments, by the spec's field; learning rate and length of training may."""
    assert spec.model is not None and spec.data is not None and spec.training is not None
    return {
        "workers.count": world_size,
        "deepspeed.zero_optimization.stage": spec.zero_stage(),
        "job": spec.job,
        "model": spec.model.model_dump(mode="json", exclude_none=True),
        "distill": None if spec.distill is None else spec.distill.model_dump(mode="json", exclude_none=True),
        "data.files": digest,
        "data.sequence_length": spec.data.sequence_length,
        "training.batch_size": spec.training.batch_size,
        "training.seed": spec.training.seed,
    }


def fits(now: dict[str, Any], found: checkpoint.Published) -> None:
    """InputError where the checkpoint was written by a run that this spec, or this width, cannot continue."""
    then, name = found.meta["essentials"], found.folder.name
    for field, value in now.items():
        before = then.get(field)
        if before == value:
            continue
        if field == "workers.count":
            raise InputError(
                f"workers.count: {name} was written by {before} workers and {value} cannot take it up: resizing comes "
                f"with the universal checkpoint; run with {before}"
            )
        if field == "data.files":
            raise InputError(
                f"data.files: the text differs from what {name} was trained on; restore it or submit a new job"
            )
        raise InputError(f"{field}: {value!r} was {before!r} in {name}; change it back or submit a new job")
