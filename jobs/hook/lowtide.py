"""What a script asks of lowtide: is a checkpoint due, where to save it, what to resume from. Alone it needs nothing.
In: step boundaries of a script that `job: script` runs. Out: the same answer on every rank; by hand, nothing is due.
The worker that started the script (jobs.script) answers over a local socket. This file stands on its own.

    import lowtide

    found = lowtide.resume()                                # a folder; None the first time
    if found:
        engine.load_checkpoint(found)
    for step in range(found.step if found else 0, STEPS):
        ...
        if lowtide.due(step + 1, STEPS, loss=loss):         # on every rank, after every step
            with lowtide.save() as folder:                  # on every rank; ends the script where it is to pause
                engine.save_checkpoint(folder)

With the Hugging Face Trainer: `Trainer(..., callbacks=[lowtide.callback()])` and
`trainer.train(resume_from_checkpoint=lowtide.resume())`.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["callback", "due", "output", "phase", "resume", "save", "stopping"]

SOCKET = "LOWTIDE_SOCKET"
RESUME_FROM = "LOWTIDE_RESUME_FROM"
RESUME_STEP = "LOWTIDE_RESUME_STEP"
OUTPUT = "LOWTIDE_OUTPUT"


class Folder(str):
    """The path of a checkpoint's folder; `step` is the step that it was saved after."""

    step = 0


def due(
    step: int, steps: int | None = None, loss: Any = None, samples: int | None = None, tokens: int | None = None
) -> bool:
    """Whether a checkpoint is due now, after `step` steps: the same answer on every rank. Ask after every step.

    Between two answers it costs a comparison. `steps` is the number of all steps, where it is known: plans are made by
    it. `loss` is this rank's newest loss, a number or a tensor, which is read only when an answer is fetched; `samples`
    and `tokens` are those of all ranks since the first step, for joules by each.
    """
    return _line.due(int(step), steps, loss, samples, tokens)


@contextmanager
def save(step: int | None = None) -> Iterator[str]:
    """A folder to write the checkpoint into, the same on every rank; it counts once every rank has left the block.

    Where the job is to pause, the script ends here (SystemExit), on every rank. `step` is the one that `due` was asked
    for last, unless it is given.
    """
    step = _line.step if step is None else int(step)
    folder = _line.begin(step)
    yield folder
    _line.publish(step)


def resume() -> Folder | None:
    """The folder of the newest checkpoint, with the step in its `step`; None where there is none, or run by hand."""
    if not os.environ.get(RESUME_FROM):
        return None
    phase("restore")
    found = Folder(os.environ[RESUME_FROM])
    found.step = int(os.environ.get(RESUME_STEP, "0"))
    return found


def stopping() -> bool:
    """Whether the checkpoint that is due is the last one, for the job is to pause."""
    return _line.stopping


def output() -> str:
    """A folder for what the job makes, kept beside its checkpoints; `output` in the working directory by hand."""
    folder = os.environ.get(OUTPUT, os.path.abspath("output"))
    os.makedirs(folder, exist_ok=True)
    return folder


def phase(name: str) -> None:
    """Charge the energy from now on to `restore`, `train`, `evaluate` or `checkpoint`; lowtide marks all but the third.

    After `evaluate` say `train`.
    """
    _line.tell({"ask": "phase", "name": name})


def callback() -> Any:
    """A Trainer callback that saves by the Trainer's own checkpoints, and ends the script where the job is to pause."""
    from transformers import TrainerCallback

    class Lowtide(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.loss: float | None = None
            self.asked = self.mine = self.evaluates = False

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.loss = (logs or {}).get("loss", self.loss)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            step, tokens = state.global_step, int(getattr(state, "num_input_tokens_seen", 0) or 0)
            if due(step, state.max_steps, self.loss, step * batch, tokens or None):
                self.asked, self.mine = True, not control.should_save
                control.should_save = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if self.asked:
                self.asked = False
                _publish_trainers(args.output_dir, state, self.mine)
                control.should_training_stop = control.should_training_stop or stopping()
            return control

        def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if not self.evaluates:
                self.evaluates = True
                phase("evaluate")
            return control

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            self.evaluates = False
            phase("train")
            return control

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if stopping():
                control.should_evaluate = control.should_save = control.should_log = False
            return control

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if stopping():  # what comes after train() is meant for a model that is done
                raise SystemExit(0)

    return Lowtide()


def _publish_trainers(output_dir: str, state: Any, mine: bool) -> None:
    """Take the checkpoint that the Trainer has just written, by links where they can be; leave none that is `mine`."""
    source = os.path.join(output_dir, f"checkpoint-{state.global_step}")
    folder = _line.begin(state.global_step)  # returns when every rank has written its part
    if os.environ.get("LOCAL_RANK", "0") == "0":
        shutil.copytree(source, folder, copy_function=_link, dirs_exist_ok=True)
    _line.publish(state.global_step, ends=False)
    best = getattr(state, "best_model_checkpoint", None)
    if mine and os.environ.get("LOCAL_RANK", "0") == "0" and (not best or not os.path.samefile(best, source)):
        shutil.rmtree(source, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy on another file system; one that another node has put there stays."""
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            shutil.copy2(source, target)


class _Line:
    """The socket to the worker; of the process that the worker started, and silent in its forks."""

    def __init__(self) -> None:
        self.step = 0
        self.stopping = False
        self._next = 0
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._file: Any = None
        self._told = 0

    def due(self, step: int, steps: int | None, loss: Any, samples: int | None, tokens: int | None) -> bool:
        self.step = step
        if step < self._next or not self._open():
            return False
        answer = self._ask(
            {
                "ask": "due",
                "step": step,
                "steps": None if steps is None else int(steps),
                "loss": _finite(loss),
                "samples": None if samples is None else int(samples),
                "tokens": None if tokens is None else int(tokens),
            }
        )
        self._told = step
        self._next = step + answer["distance"]
        self.stopping = answer["action"] == "stop"
        return bool(answer["action"] != "go")

    def begin(self, step: int) -> str:
        if not self._open():
            folder = os.path.join(os.path.abspath("checkpoints"), f"step-{step:08d}")
            os.makedirs(folder, exist_ok=True)
            return folder
        return str(self._ask({"ask": "save", "step": step})["folder"])

    def publish(self, step: int, ends: bool = True) -> None:
        if not self._open():
            return
        self.stopping = bool(self._ask({"ask": "publish", "step": step})["stop"])
        if self.stopping and ends:
            raise SystemExit(0)

    def tell(self, note: dict[str, Any]) -> None:
        """Say something that needs no answer; nothing where nobody listens any more."""
        if self._open():
            with suppress(OSError), self._lock:
                self._write(note)

    def last_word(self) -> None:
        if self._file is not None and self.step > self._told:
            self.tell({"ask": "step", "step": self.step})

    def _open(self) -> bool:
        if os.getpid() != self._pid or not os.environ.get(SOCKET):
            return False
        if self._file is None:
            door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            door.connect(os.environ[SOCKET])
            self._file = door.makefile("rwb")
            atexit.register(self.last_word)
        return True

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._write(question)
            line = self._file.readline()
        if not line:
            sys.exit("lowtide: the worker of this rank is gone")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError("lowtide: " + answer["error"])
        return answer

    def _write(self, message: dict[str, Any]) -> None:
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()


def _finite(loss: Any) -> float | None:
    """The loss as a number; None where it is not given or is none."""
    value = None if loss is None else float(loss)
    return value if value is not None and math.isfinite(value) else None


_line = _Line()
