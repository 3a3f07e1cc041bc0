"""One rank of a script's segment: start the process, have its questions answered, end it where it is to end.
In: a JobSpec, a Place, a Watch and a Seat, on every rank. Out: an Outcome and published checkpoints.
The cluster's worker calls `run`. What needs every rank goes between the workers, so that the script needs no group.

A script that does not answer a stop in PATIENCE_S, or at once one that never asks, is sent SIGTERM, and SIGKILL after
GRACE_S.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jobs.checkpoints.shelf import Shelf
from jobs.pace import Parts
from jobs.place import Outcome, Place, Watch
from jobs.script.answers import Answers
from jobs.script.child import Child, cause
from jobs.script.line import Line
from jobs.script.room import wants_room
from jobs.script.seat import Seat, command, environment
from jobs.spec import JobFault, JobSpec, Unavailable

if TYPE_CHECKING:
    from jobs.script.board import Board

LOOK_S = 0.1
"""How often the process is looked at while it asks nothing."""
BOARD_EVERY_S = 0.5
PATIENCE_S = 240.0
"""How long a script that asks may take to its next question once it is to stop: an evaluation, say."""
GRACE_S = 30.0
"""From SIGTERM to SIGKILL."""
LEAVE_S = 60.0
"""How long a script that saved for a pause may take to end by itself."""


class ScriptFault(JobFault):
    """The script failed by itself; `output` is the last of its stderr, and the text again."""

    output = ""


class NoRoom(Unavailable):
    """The script failed because a disk takes no more: no fault of its own. `output` is as a ScriptFault's."""

    output = ""


def run(spec: JobSpec, place: Place, watch: Watch, seat: Seat) -> Outcome:
    """Run the script until it ends, or until a stop is wanted. ScriptFault or NoRoom where it fails."""
    parts = Parts()
    watch.phase("start")
    with parts.time("imports"):
        from jobs.group import Group
        from jobs.script.board import Board
    group = Group(place)
    board = Board(group)
    shelf = Shelf(place, spec.checkpoint.keep, parts)
    answers = Answers(spec, place, watch, group, shelf, parts)
    with parts.time("find"):
        found = group.first(shelf.find)
    env = environment(place, seat, group)
    if found is not None:
        answers.go_on(found)
        env |= {"LOWTIDE_RESUME_FROM": str(found.folder), "LOWTIDE_RESUME_STEP": str(found.step)}
    line = Line()
    try:
        child = Child(command(spec), str(seat.folder), {**env, "LOWTIDE_SOCKET": line.path})
        try:
            done = _Run(spec, place, watch, board, line, child, answers).go()
        finally:
            child.close()
    finally:
        line.close()
    with parts.time("mirror"):
        group.first(lambda: shelf.finish(result=done and (place.checkpoints / "final").is_dir()))
    parts.add("train", answers.trained_s)
    step = answers.step if done else answers.saved_step
    steps = answers.steps or (step if done else 0)
    bytes_ = answers.checkpoint_bytes, shelf.moved_bytes
    return Outcome(done, step, steps, answers.metrics, parts.seconds, *bytes_, shelf.moved_from)


class _Run:
    """One rank's run of the script."""

    def __init__(
        self, spec: JobSpec, place: Place, watch: Watch, board: Board, line: Line, child: Child, answers: Answers
    ) -> None:
        assert spec.script is not None
        self._script, self._place, self._watch = spec.script, place, watch
        self._board, self._line, self._child, self._answers = board, line, child, answers
        self._board_at_s = 0.0
        self._stop_seen_at_s: float | None = None
        self._told_to_end_at_s: float | None = None

    def go(self) -> bool:
        """Answer and look until the process has ended; True where every rank's has ended by itself, and well."""
        if self._script.asks is False:
            self._answers.mark("train")
            self._watch.stepped(0, 0, None, 0, 0.0)
        while True:
            self._answer(LOOK_S)
            code = self._child.code()
            if code is not None:
                while self._answer(0.0):
                    pass
                return self._ended(code)
            self._look()

    def _answer(self, timeout_s: float) -> bool:
        """Answer what is asked within `timeout_s`; False where nothing is."""
        message = self._line.next(timeout_s)
        if message is None:
            return False
        reply = self._answers.take(message)
        if reply is not None:
            self._line.answer(reply)
        return True

    def _look(self) -> None:
        """End the process where it is time to, as far as this rank knows."""
        now_s, left_at_s = time.monotonic(), self._answers.left_at_s
        if self._place.rank == 0 and self._stop_seen_at_s is None and self._watch.stop_wanted():
            self._stop_seen_at_s = now_s
        if self._told_to_end_at_s is not None:
            if now_s - self._told_to_end_at_s > GRACE_S:
                self._child.kill()
        elif left_at_s is not None:
            if now_s - left_at_s > LEAVE_S:
                self._tell_to_end(now_s)
        elif self._stop_seen_at_s is not None and now_s - self._stop_seen_at_s > self._patience_s():
            self._board.end()
            self._tell_to_end(now_s)
        elif now_s - self._board_at_s > BOARD_EVERY_S:
            self._board_at_s = now_s
            if self._board.ends():
                self._tell_to_end(now_s)

    def _patience_s(self) -> float:
        return 0.0 if self._script.asks is False and not self._answers.asked else PATIENCE_S

    def _tell_to_end(self, now_s: float) -> None:
        self._told_to_end_at_s = now_s
        if self._place.rank == 0:
            stands = self._answers.stands()
            print(f"lowtide: the script is ended by SIGTERM, for it does not end by itself; {stands}", flush=True)
        self._child.terminate()

    def _ended(self, code: int) -> bool:
        paused = self._answers.left_at_s is not None
        ended = not paused and (self._told_to_end_at_s is not None or self._board.ends())
        if code != 0 and not paused and not ended:
            self._fail(code)
        if code != 0 and paused:
            print(f"lowtide: rank {self._place.rank}: the script ended with {code} after it had saved", flush=True)
        self._answers.mark("stop")
        everyone = self._answers.exchange("end", 0, interrupted=paused or ended)
        return not any(each["interrupted"] for each in everyone)

    def _fail(self, code: int) -> None:
        from jobs.script.board import PeerFailed

        words, rank = self._child.last_words(), self._place.rank
        if not self._board.fail():
            raise PeerFailed
        said = cause(code, words)
        text = f"script: {self._script.entrypoint!r} failed on rank {rank}: {said}"
        fault: ScriptFault | NoRoom = ScriptFault(text)
        if wants_room(said, self._answers.saves):
            self._child.close()
            self._answers.drop()
            fault = NoRoom(f"{text}; make room; {self._answers.stands()}")
        fault.output = f"{words}\n{fault}".strip()
        raise fault
