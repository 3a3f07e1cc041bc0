"""The result of a finished job: a model that transformers reads, and its metrics.
In: an engine at its last step. Out: `<checkpoints>/final/` with model/ and metrics.json, replaced atomically.
Users take it from there; a job that is run again after its end reads it back.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import tokens
from jobs.checkpoints import checkpoint, fence
from jobs.patience import told_as
from jobs.spec import Fenced, Unavailable

if TYPE_CHECKING:
    from jobs.engine import Engine
    from jobs.group import Group

METRICS = "metrics.json"


def write(
    group: Group, engine: Engine, folder: Path, step: int, metrics: dict[str, float], tokenizer: str, segment: int = 0
) -> None:
    """Write `folder/final`; all ranks call. The tokenizer goes beside the weights unless it is `bytes`.

    Fenced where a later segment has taken over; what that has finished stays.
    """
    final = folder / "final"
    partial = folder / (f"final-{segment}.partial" if segment else "final.partial")

    def prepare() -> None:
        fence.check(folder, segment)
        checkpoint.clear(folder, segment)
        with told_as(str(partial)):
            partial.mkdir()

    def finish(fault: Unavailable | None) -> None:
        if fault is not None:
            raise fault
        with told_as(str(partial)), fence.blamed(folder, segment):
            publish()

    def publish() -> None:
        encoder = tokens.tokenizer(tokenizer)
        if isinstance(encoder, tokens.Pretrained):
            encoder.save(partial / "model")
        checkpoint.write_atomically(partial / METRICS, {"step": step, "metrics": metrics})
        checkpoint.seal(partial)
        fence.check(folder, segment)
        if final.exists():
            set_aside()
        partial.rename(final)  # which fails where another segment's has come there meanwhile
        checkpoint.sync_folder(folder)

    def set_aside() -> None:
        before = partial.with_name(f"before-{partial.name}")
        final.rename(before)
        try:
            fence.check(folder, segment)
        except Fenced:
            before.rename(final)  # it may be the later segment's
            raise
        shutil.rmtree(before)

    group.first(prepare)
    fault: Unavailable | None = None
    try:
        engine.export(partial / "model")
    except Unavailable as unwritten:  # of rank 0, which writes: the others are told together
        fault = unwritten
    group.first(lambda: finish(fault))


def read(folder: Path, step: int) -> dict[str, float] | None:
    """The metrics of `folder/final` where it is the result of `step`; else None."""
    try:
        about: dict[str, Any] = json.loads((folder / "final" / METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return dict(about["metrics"]) if about["step"] == step else None
