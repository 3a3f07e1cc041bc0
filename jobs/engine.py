"""DeepSpeed, set up so that a paused job ends as an undisturbed one would, bit for bit.
In: a Place, the spec, a module and an objective. Out: an Engine that steps, evaluates, saves, loads and exports.
The loop in jobs.train drives it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch

from jobs.checkpoints import masters, saving
from jobs.checkpoints.checkpoint import Sealed
from jobs.checkpoints.loading import patiently
from jobs.checkpoints.snapshot import Snapshot
from jobs.compiler import check, guard, load, put_interpreter_on_path
from jobs.data import Batch, Micro, micro_size
from jobs.marks import StepPart, marks_on
from jobs.objective import IGNORED, Objective, next_token
from jobs.place import Place
from jobs.schedule import learning_rate
from jobs.spec import JobFault, JobSpec, Unavailable
from jobs.spec.job import Training


def prepare(place: Place) -> Any:
    """Ready this process and import DeepSpeed; call it before anything touches the device. Returns the module.

    Deterministic algorithms are on in the strict form, for with `warn_only` torch keeps the attention kernels that are
    not deterministic. LOWTIDE_DETERMINISTIC=0 in the job's env trains a model that has no deterministic kernels.
    """
    put_interpreter_on_path()
    if place.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        if (missing := check()) is not None:
            raise Unavailable(missing)
    else:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ["LOCAL_RANK"] = str(torch.device(place.device).index or 0)  # DeepSpeed picks its device by it
        torch.cuda.set_device(place.device)
    torch.serialization.set_crc32_options(False)  # every file of a checkpoint has its checksum
    if os.environ.get("LOWTIDE_DETERMINISTIC", "1") != "0":
        torch.use_deterministic_algorithms(True)
        # Filling costs time and changes no result.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
    with _absent("mlflow"):  # DeepSpeed's autotuner, which is never used here, asks whether there is one
        import deepspeed

    guard()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if place.device == "cpu":
        load()
    _spare_the_compiler()
    return deepspeed


def deepspeed_config(spec: JobSpec, world_size: int, universal: bool = False) -> dict[str, Any]:
    """The spec's DeepSpeed section with the batch keys that follow from the spec and the worker count.

    `universal`: the checkpoint that will be loaded is one of jobs.checkpoints.universal.
    """
    assert spec.training is not None
    micro = micro_size(spec.training, world_size)
    ours = {
        "train_batch_size": spec.training.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": spec.training.batch_size // world_size // micro,
        "steps_per_print": 1 << 62,  # the watch reports progress
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    config = {**ours, **spec.deepspeed}
    return {**config, "checkpoint": {**config.get("checkpoint", {}), "load_universal": True}} if universal else config


def peak_rate(spec: JobSpec) -> float:
    """The peak learning rate: that of an optimizer which the DeepSpeed section brings, else training.learning_rate."""
    assert spec.training is not None
    parameters = spec.deepspeed.get("optimizer", {}).get("params", {})
    return float(parameters.get("lr", spec.training.learning_rate))


class Engine:
    """One rank's DeepSpeed engine with its objective, its losses and its random numbers.

    Random numbers (dropout) follow from `training.seed` and the global number of a micro-batch's first sample alone, so
    nothing of them is saved: a job draws the same whenever it was paused, and at every width at which a worker takes as
    many samples at once. At a width whose micro-batches are of another size, other numbers of the same distribution.
    """

    def __init__(
        self, deepspeed: Any, spec: JobSpec, place: Place, module: Any, objective: Objective, universal: bool = False
    ) -> None:
        assert spec.training is not None
        self._training: Training = spec.training
        self._place = place
        self._universal = universal
        self._objective = objective
        self._peak = peak_rate(spec)
        self._own_schedule = "scheduler" in spec.deepspeed
        config = deepspeed_config(spec, place.world_size, universal)
        self._accumulation: int = config["gradient_accumulation_steps"]
        optimizer = None
        if "optimizer" not in config:
            optimizer = torch.optim.AdamW(
                module.parameters(), lr=self._peak, weight_decay=spec.training.weight_decay, fused=None
            )
        self._engine: Any = deepspeed.initialize(
            model=module, optimizer=optimizer, model_parameters=list(module.parameters()), config=config
        )[0]
        self._snapshot = self._engine.checkpoint_engine = Snapshot(self._engine.checkpoint_engine)
        self._engine._copy_recovery_script = lambda _folder: None  # of no use here, and it may not fail on a full disk
        self._device = torch.device(place.device)
        self._loss = torch.zeros((), device=self._device)
        self._bad = torch.full((), -1, dtype=torch.int64, device=self._device)
        self._marks = marks_on(self._device)
        self._marks.watch(deepspeed.comm.comm.cdb)

    def step(self, step: int, steps: int, batches: Iterable[Micro]) -> None:
        """Take step number `step` (from 0) of `steps` with this rank's micro-batches. The device may lag behind."""
        if not self._own_schedule:
            rate = learning_rate(step, steps, self._peak, self._training.warmup_steps)
            for group in self._engine.optimizer.param_groups:
                group["lr"] = rate
        self._engine.train()
        total = torch.zeros((), device=self._device)
        self._marks.begin()
        for micro in batches:
            _seed(self._training.seed, micro.first)
            inputs, labels = self._tensors(micro.rows)
            self._marks.enter("forward")
            # Every token of a packed sample is valid, so micro-batches of equal size make a mean over the global batch.
            loss = self._objective(self._engine, inputs, labels) / labels.numel()
            self._marks.enter("backward")
            self._engine.backward(loss)
            self._marks.enter("optimizer")
            self._engine.step()
            total += loss.detach()
            self._marks.enter("data")
        self._marks.end()
        self._loss = total / self._accumulation
        fresh = (self._bad < 0) & ~torch.isfinite(self._loss)
        self._bad = torch.where(fresh, step + 1, self._bad)

    def losses(self) -> tuple[float, int | None]:
        """The newest step's loss on this rank, and the first step whose loss was not finite. Waits for the device."""
        bad = int(self._bad)
        return float(self._loss), (bad if bad >= 0 else None)

    def sampled_s(self) -> dict[StepPart, float]:
        """Seconds by part of this rank's sampled steps, as far as the device has come; waits for nothing."""
        return self._marks.seconds()

    def evaluate(self, batches: Iterator[tuple[Batch, int]]) -> tuple[float, int]:
        """Cross-entropy summed over the first samples of each batch (the number beside it), and their tokens.

        Every rank must bring as many batches, for ZeRO-3 gathers weights at each.
        """
        self._engine.eval()
        nats, tokens = 0.0, 0
        with torch.no_grad():
            for batch, valid in batches:
                inputs, labels = self._tensors(batch)
                labels = labels.clone()  # of a single sample both are views of the batch
                labels[valid:] = IGNORED
                nats += float(next_token(self._engine, inputs, labels))
                tokens += valid * labels.shape[1]
        return nats, tokens

    def save(self, folder: Path, tag: str, beside: bool = False) -> None:
        """Hold this rank's part of the checkpoint `folder/tag`, a copy where it is written `beside` the training.

        All ranks call; `finish_save` writes it and tells what the disk says to it.
        """
        self._snapshot.begin(copies=beside, once=masters.are_whole(self._engine))
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False)

    def finish_save(self, over: Event) -> dict[Path, Sealed]:
        """Write what `save` holds: this rank's files. Talks to no other rank, so it may run in a thread.

        Unavailable where the disk did not take them, GivenUp where `over` was set before they were written.
        """
        return saving.write(self._snapshot.take(), over)

    def load(self, folder: Path) -> None:
        """Take up weights and optimizer of a checkpoint; JobFault where there is none.

        An engine made with `universal` takes up what checkpoints.universal made of one, any other what as many wrote.
        Unavailable where the disk is gone or silent.
        """
        with patiently(folder):
            self._load(folder)

    def _load(self, folder: Path) -> None:
        lacking: list[str] = []
        take = functools.partial(masters.take, lacking) if masters.are_whole(self._engine) else None
        path, _ = self._engine.load_checkpoint(str(folder.parent), tag=folder.name, custom_load_fn=take)
        if path is None:
            raise JobFault(f"{folder}: DeepSpeed found no checkpoint in it; restore the folder or remove it")
        if self._universal:
            self._load_buffers(Path(path))
        elif lacking:
            masters.give(self._engine, lacking, folder)

    def _load_buffers(self, model_file: Path) -> None:
        """Take up the module's buffers, which DeepSpeed leaves as they are when it loads a universal checkpoint."""
        saved = torch.load(model_file, map_location="cpu", weights_only=False)["module"]
        own = dict(self._engine.module.named_buffers())
        for name, buffer in saved.items():
            own[name].copy_(buffer)

    def export(self, folder: Path) -> None:
        """Write the whole model to `folder` as transformers reads it (safetensors); all ranks call, rank 0 writes.

        Unavailable on rank 0 where the disk does not take it.
        """
        weights = None
        if self._engine.zero_optimization_partition_weights():
            weights = self._engine._zero3_consolidated_16bit_state_dict()
        if self._place.rank == 0:
            from safetensors import SafetensorError
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()
            try:
                self._engine.module.save_pretrained(str(folder), state_dict=weights)
            except (OSError, SafetensorError) as fault:
                raise Unavailable(f"{folder}: the model was not written: {fault}") from fault

    def close(self) -> None:
        """Free what DeepSpeed holds."""
        self._marks.close()
        self._engine.destroy()

    def _tensors(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(batch).to(self._device, non_blocking=True)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """Within the block the module cannot be imported, unless it has been: its import is slow, and of no use."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # as Python has it for what is not to be imported
    try:
        yield
    finally:
        del sys.modules[name]


def _spare_the_compiler() -> None:
    """Keep torch's compiler out of the start: DeepSpeed imports Muon to ask whether an optimizer is one.

    Muon's module is decorated with torch.compile, which takes 1.4 s of a core at every start; undecorated it computes
    the same. A DeepSpeed that has moved these names starts slower and no less right.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from deepspeed.runtime import compiler

        compile_with, plain = compiler.compile, compiler.dummy_decorator
        compiler.compile = lambda: plain
        try:
            importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
        finally:
            compiler.compile = compile_with


def _seed(seed: int, number: int) -> None:
    """The random numbers of the micro-batch that begins with the global sample `number`."""
    mixed = int(np.random.SeedSequence([seed & 0xFFFFFFFFFFFFFFFF, number]).generate_state(1, np.uint64)[0])
    random.seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)
    torch.manual_seed(mixed)  # CUDA's generators, too
