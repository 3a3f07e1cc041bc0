"""Resuming: what a checkpoint must share with the run that takes it up.
In: the spec, the place and the text's digest; a published checkpoint. Out: the checkpoint, or why it does not fit.
Next, jobs.engine loads it, at another width as `universal` made it.
"""

from __future__ import annotations

from typing import Any

from jobs.checkpoints import checkpoint, fence
from jobs.checkpoints.bring import Brought, bring
from jobs.patience import bounded, told_as
from jobs.place import Place
from jobs.spec import InputError, JobSpec


def find(place: Place, keep: int) -> Brought:
    """The newest checkpoint of the job, brought over first where it lies elsewhere. Call it on one rank.

    From here on earlier segments may publish no more, for what is found here is gone on from. Fenced where a later one
    has done the same.
    """
    folder = place.checkpoints
    with told_as(str(folder)):
        bounded(str(folder), lambda _pulse: fence.claim(folder, place.segment))
    checkpoint.clear(folder, place.segment)
    sources = [place.restore_from, *place.also_at, place.mirror]
    return bring(folder, [str(each) for each in sources if each], keep, place.start_step, segment=place.segment)


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


def is_resize(now: dict[str, Any], found: checkpoint.Published) -> bool:
    """Whether another number of workers wrote the checkpoint."""
    return bool(found.meta["essentials"]["workers.count"] != now["workers.count"])


def fits(now: dict[str, Any], found: checkpoint.Published) -> None:
    """InputError where the checkpoint was written by a run that this spec cannot continue; the width may differ."""
    then, name = found.meta["essentials"], found.folder.name
    for field, value in now.items():
        before = then.get(field)
        if before == value or field == "workers.count":
            continue
        if field == "data.files":
            raise InputError(
                f"data.files: the text differs from what {name} was trained on; restore it or submit a new job"
            )
        raise InputError(f"{field}: {value!r} was {before!r} in {name}; change it back or submit a new job")
