"""The one loop that every job shares: build, resume, step, checkpoint, result.
In: a JobSpec, a Place and a Watch, on every rank. Out: an Outcome and published checkpoints.
The cluster's worker calls `run`; heavy imports happen inside it, so that they are timed as a part of the start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from jobs import audit, result, tokens
from jobs.checkpoints import checkpoint, resume
from jobs.checkpoints.save import Saver
from jobs.checkpoints.shelf import Shelf
from jobs.data import Corpus, corpus, feed, holdout_batches, micro_size, total_steps
from jobs.pace import Action, Clock, Parts
from jobs.place import Outcome, Place, Watch
from jobs.spec import InputError, JobFault, JobSpec, Unavailable

if TYPE_CHECKING:
    from jobs.checkpoints.resize import Resize
    from jobs.engine import Engine
    from jobs.group import Group

Value = TypeVar("Value")
SAVE_AGAIN_S = (2.0, 10.0, 30.0)
"""Before each further try of the save that ends a segment."""


def run(spec: JobSpec, place: Place, watch: Watch) -> Outcome:
    """Train (or distill) from the newest checkpoint until the last step, or until a stop is wanted.

    Raises InputError where spec and data or checkpoint do not fit, JobFault where the training fails.
    """
    parts = Parts()
    watch.phase("start")
    _check(spec, place)
    shelf = Shelf(place, spec.checkpoint.keep, parts)
    finding = _begun(shelf.find) if place.rank == 0 else None
    with parts.time("imports"):
        from jobs import engine as engines
        from jobs.group import Group

        deepspeed = engines.prepare(place)
    with parts.time("group"):
        group = Group(place)
    with parts.time("find"):
        found = group.first(lambda: finding.result() if finding is not None else None)
    with parts.time("data"):  # not sooner: `find` removes what a crash left there
        text = _corpus(spec, place, group)
    return _Run(spec, place, watch, group, parts, shelf, text).go(deepspeed, found)


def _begun(act: Callable[[], Value]) -> Future[Value]:
    """`act` in a thread of its own: a checkpoint is brought and checked while Python imports and the ranks meet."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except Exception as fault:  # who waits for the result gets it
            future.set_exception(fault)

    threading.Thread(target=run, name="lowtide-find", daemon=True).start()
    return future


class _Run:
    """One rank's run; the methods are its stages, in order."""

    def __init__(
        self, spec: JobSpec, place: Place, watch: Watch, group: Group, parts: Parts, shelf: Shelf, text: Corpus
    ) -> None:
        assert spec.training is not None and spec.data is not None
        self.spec, self.place, self.watch, self.group, self.parts, self.corpus = spec, place, watch, group, parts, text
        self.essentials = resume.essentials(spec, place.world_size, text.digest)
        self.training = spec.training
        self.shelf = shelf
        self.saver = Saver(group, place, self.shelf, parts)
        self.length = spec.data.sequence_length
        self.steps = total_steps(spec.training, len(text.training), self.length)
        self.step = 0
        self.saved_step = 0
        self.checkpoint_bytes = 0
        self.told = ""
        self.metrics: dict[str, float] = {}

    def go(self, deepspeed: Any, found: checkpoint.Published | None) -> Outcome:
        """Build, resume from `found`, step, checkpoint, result."""
        self._take(found)
        if self.step >= self.steps and self._has_result():
            return self._outcome(done=True)
        resize = self._resize(found)
        with self.parts.time("build"):
            engine = self._build(deepspeed, universal=resize is not None)
        if found is not None:
            self.watch.phase("restore")
            self._restore(engine, found, resize)
        done = self._train(engine)
        self._save(engine, ends=True)
        if done:
            self._evaluate(engine)
            self._export(engine)
        self.saver.close()
        self.watch.phase("stop")
        with self.parts.time("mirror"):
            self.group.first(lambda: self.shelf.finish(result=done))
        engine.close()
        return self._outcome(done)

    def _take(self, found: checkpoint.Published | None) -> None:
        """Stand where the checkpoint to resume from does, the same on every rank; None starts afresh."""
        if found is not None:
            resume.fits(self.essentials, found)
            self.step = self.saved_step = found.step
            self.checkpoint_bytes = found.size_bytes
            self.metrics = dict(found.meta["metrics"])

    def _resize(self, found: checkpoint.Published | None) -> Resize | None:
        """The conversion of a checkpoint whose shards are of another width, begun; None where there is none to do."""
        if found is None or not resume.is_resize(self.essentials, found):
            return None
        from jobs.checkpoints import universal
        from jobs.checkpoints.resize import Resize

        return Resize(self.group, self.place, found) if universal.is_sharded(found) else None

    def _restore(self, engine: Engine, found: checkpoint.Published, resize: Resize | None) -> None:
        folder = found.folder
        if resize is not None:
            with self.parts.time("convert"):
                folder = resize.folder()
        with self.parts.time("restore"):
            engine.load(folder)

    def _build(self, deepspeed: Any, universal: bool) -> Engine:
        from jobs.engine import Engine
        from jobs.flops import metrics_of
        from jobs.model import build
        from jobs.objective import Objective, next_token

        spec, corpus, seed = self.spec, self.corpus, self.training.seed
        assert spec.model is not None
        module = build(spec.model, corpus.vocab_size, self.length, corpus.end_id, seed)
        objective: Objective = next_token
        teacher = None
        if spec.distill is not None:
            from jobs import distill

            field = "distill.teacher"
            teacher = build(spec.distill.teacher, corpus.vocab_size, self.length, corpus.end_id, seed + 1, field)
            objective = distill.objective(_as_trained(teacher, spec, self.place.device), spec.distill)
        self.metrics |= metrics_of(module, teacher, self.length)
        return Engine(deepspeed, spec, self.place, module, objective, universal)

    def _train(self, engine: Engine) -> bool:
        """Step until the last step or until the ranks agree to stop; True where the last step was taken."""
        clock = Clock(self.watch, self.spec.checkpoint.every_s, asks=self.place.rank == 0)
        own = feed(self.corpus.training, self.training, self.place.rank, self.place.world_size)
        batches = audit.audited(own, self.place)
        self.watch.phase("train")
        action = self._check_in(engine, clock)
        while self.step < self.steps and action != "stop":
            with clock.step():
                engine.step(self.step, self.steps, batches(self.step))
                self.step += 1
                checked = self.step >= clock.next_check
                action = self._check_in(engine, clock) if checked else "go"
            loss = self.metrics["loss"] if checked else None
            self.watch.stepped(self.step, self.steps, loss, clock.trained_steps, clock.trained_s)
            if action == "checkpoint" and self.saver.in_flight is None:  # else it will be asked for again
                self._save(engine, ends=False)
                self.watch.phase("train")
                clock.saved()
        self.parts.add("first_step", clock.first_step_s)
        self.parts.add("train", clock.trained_s)
        self.parts.add("step_end", clock.step_end_s())
        self._share_out(engine, clock.trained_s)
        return self.step >= self.steps

    def _share_out(self, engine: Engine, trained_s: float) -> None:
        """The seconds trained by part of a step, as `step.forward` and so on: the mean of what the ranks sampled."""
        from jobs.marks import STEP_PARTS, scaled_s

        mine = engine.sampled_s()
        everyone = dict(zip(STEP_PARTS, self.group.sum([mine[part] for part in STEP_PARTS]), strict=True))
        for part, part_s in scaled_s(everyone, trained_s).items():
            self.parts.add(f"step.{part}", part_s)

    def _check_in(self, engine: Engine, clock: Clock) -> Action:
        """Exchange the word with the other ranks; JobFault on all of them where a loss is not finite."""
        loss, bad = engine.losses()
        action, distance = clock.decide(self.step, self.steps)
        check = self.group.check(action, distance, loss, bad, self.saver.is_written)
        clock.agreed(self.step, check.distance)
        if check.written and self.saver.in_flight is not None:
            self._finish(self.saver.in_flight, waits=False)
        if check.first_bad_step is not None:
            raise JobFault(
                f"step {check.first_bad_step}: the loss is not finite; lower training.learning_rate, add "
                f"deepspeed.gradient_clipping, or look at the data (last checkpoint: step {self.saved_step})"
            )
        if clock.trained_steps or self.step > self.saved_step:
            samples = self.step * self.training.batch_size
            self.metrics |= {"loss": check.loss, "samples": samples, "tokens": samples * self.length}
        return check.action

    def _save(self, engine: Engine, ends: bool) -> None:
        """A checkpoint of this step, unless there is one: begun, and written beside the training; saved where it ends.

        Where the disk is full or hangs, training goes on and the checkpoint before stands; where the segment `ends`
        here, saving is tried again, and then Unavailable says so.
        """
        if self.saver.in_flight == self.step:
            self._finish(self.step, waits=True)
        if self.step == self.saved_step:
            return
        if self.saver.in_flight is not None:
            self.saver.abandon()  # all of this step is to be written anyway: a pause waits for one write, not for two
        for wait_s in (*SAVE_AGAIN_S, None) if ends else (None,):
            try:
                self._begin(engine, beside=not ends)
                if ends:
                    self._publish(waits=True)
                return
            except Unavailable as fault:
                told = self._not_saved(self.step, fault)
                if ends and wait_s is None:
                    raise Unavailable(told) from fault
            self._tell(told)
            time.sleep(wait_s or 0.0)

    def _finish(self, step: int, waits: bool) -> None:
        """Publish what was written beside the training; where the disk did not take it, the one before stands."""
        try:
            self._publish(waits)
        except Unavailable as fault:
            self._tell(self._not_saved(step, fault))

    def _not_saved(self, step: int, fault: Unavailable) -> str:
        stands = f"that of step {self.saved_step} stands" if self.saved_step else "there is none before it"
        return f"the checkpoint of step {step} was not saved ({fault}); {stands}"

    def _tell(self, text: str) -> None:
        """Say what went wrong with a checkpoint, in the log and to whoever watches; empty where all is well again."""
        if self.place.rank != 0 or text == self.told:
            return
        if text:
            print(f"lowtide: {text}", flush=True)
            with suppress(Unavailable):  # a part of a checkpoint only fills the disk
                checkpoint.clear(self.place.checkpoints, self.place.segment)
        self.told = text
        self.watch.note(text)

    def _begin(self, engine: Engine, beside: bool) -> None:
        self.watch.phase("checkpoint")
        meta = {
            "step": self.step,
            "segment": self.place.segment_id,
            "metrics": self.metrics,
            "essentials": self.essentials,
        }
        self.saver.begin(engine, meta, self.checkpoint_bytes, beside)

    def _publish(self, waits: bool) -> None:
        published = self.saver.finish(waits)
        self.saved_step, self.checkpoint_bytes = published.step, published.size_bytes
        self._tell("")

    def _evaluate(self, engine: Engine) -> None:
        """Mean cross-entropy of the holdout, in nats per token."""
        if len(self.corpus.holdout) == 0:
            return
        self.watch.phase("evaluate")
        with self.parts.time("evaluate"):
            micro = micro_size(self.training, self.place.world_size)
            mine = holdout_batches(self.corpus.holdout, micro, self.place.rank, self.place.world_size)
            nats, count = self.group.sum([float(value) for value in engine.evaluate(mine)])
            self.metrics["holdout_loss"] = nats / count

    def _export(self, engine: Engine) -> None:
        """Write the finished model and its metrics to `final/`."""
        assert self.spec.data is not None
        self.watch.phase("checkpoint")
        with self.parts.time("export"):
            folder, tokenizer = self.place.checkpoints, self.spec.data.tokenizer
            result.write(self.group, engine, folder, self.step, self.metrics, tokenizer, self.place.segment)

    def _has_result(self) -> bool:
        """Whether `final/` is of this step already; its metrics become this run's."""
        metrics = self.group.first(lambda: result.read(self.place.checkpoints, self.step))
        self.metrics = metrics or self.metrics
        return metrics is not None

    def _outcome(self, done: bool) -> Outcome:
        return Outcome(
            done,
            self.step,
            self.steps,
            self.metrics,
            self.parts.seconds,
            self.checkpoint_bytes,
            self.shelf.moved_bytes,
            self.shelf.moved_from,
        )


def _check(spec: JobSpec, place: Place) -> None:
    """Refuse what the loop cannot run before anything slow starts."""
    if spec.job not in ("train", "distill"):
        raise InputError(f"job: {spec.job} is not supported yet; take train or distill")
    if spec.zero_stage() not in (0, 1, 2, 3):
        raise InputError(f"deepspeed.zero_optimization.stage: {spec.zero_stage()} is no ZeRO stage; take 0, 1, 2 or 3")
    if place.world_size not in (counts := spec.worker_counts()):
        raise InputError(
            f"workers.count: {place.world_size} workers are none of this job's widths; take one of {counts}"
        )


def _corpus(spec: JobSpec, place: Place, group: Group) -> Corpus:
    """Tokenise on rank 0 where no cache is found, then map the tokens on every rank."""
    assert spec.data is not None
    data, folder = spec.data, place.checkpoints / "data"
    key = group.first(lambda: tokens.prepare(data.files, data.tokenizer, folder))
    return corpus(tokens.load(folder, key), data)


def _as_trained(teacher: Any, spec: JobSpec, device: str) -> Any:
    """The teacher on its device, in the precision that the student trains in."""
    import torch

    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        if spec.deepspeed.get(name, {}).get("enabled"):
            teacher = teacher.to(dtype)
    return teacher.to(device)
