"""What a script imports: silent by hand, and in step with its worker over the line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from jobs.script.line import Line
from jobs.script.seat import HOOK

LOOP = """
import json, sys
import lowtide
found = lowtide.resume()
print(json.dumps(["resume", found, found.step if found else None]))
for step in range(found.step if found else 0, 9):
    if lowtide.due(step + 1, 9, loss=1.5, samples=step):
        with lowtide.save() as folder:
            print(json.dumps(["save", folder, lowtide.stopping()]), flush=True)
print("end")
"""


def start(folder: Path, code: str = LOOP, **env: str) -> subprocess.Popen[str]:
    """The code in a Python that knows of no module of ours but the hook."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOOK), **env}
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code], cwd=folder, env=given, stdout=subprocess.PIPE, text=True
    )


def told(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=60)
    return out.splitlines()


class Worker:
    """Answers a script's questions by a table, and keeps them."""

    def __init__(self, line: Line, process: subprocess.Popen[str], answers: dict[int, dict[str, Any]]) -> None:
        self.line, self.process, self.answers = line, process, answers
        self.heard: list[dict[str, Any]] = []

    def serve(self) -> None:
        while True:
            message = self.line.next(0.05)
            if message is None:
                if self.process.poll() is not None:
                    return
                continue
            self.heard.append(message)
            if message["ask"] == "due":
                self.line.answer(self.answers.get(message["step"], {"action": "go", "distance": 1}))
            elif message["ask"] == "save":
                self.line.answer({"folder": "/checkpoint"})
            elif message["ask"] == "publish":
                self.line.answer({"stop": message["step"] >= 5})


def test_it_imports_the_standard_library_alone(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import lowtide; print(sorted(set(sys.modules) - before))"
    new = {name.partition(".")[0] for name in eval("".join(told(start(tmp_path, code))))}
    assert new <= {"lowtide", *sys.stdlib_module_names}


def test_by_hand_nothing_is_due_and_the_script_runs_through(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert told(process) == ['["resume", null, null]', "end"]
    assert process.returncode == 0 and list(tmp_path.iterdir()) == []


def test_by_hand_a_checkpoint_that_the_script_wants_has_a_folder(tmp_path: Path) -> None:
    code = "import lowtide\nwith lowtide.save(7) as folder: open(folder + '/a', 'w')\nprint(lowtide.output())"
    assert told(start(tmp_path, code)) == [str(tmp_path / "output")]
    assert (tmp_path / "checkpoints" / "step-00000007" / "a").exists()


def test_it_asks_as_seldom_as_it_is_told_and_ends_where_it_is_to_pause(tmp_path: Path) -> None:
    line = Line()
    process = start(tmp_path, LOWTIDE_SOCKET=line.path, LOWTIDE_RESUME_FROM="/newest", LOWTIDE_RESUME_STEP="1")
    answers = {
        2: {"action": "checkpoint", "distance": 2},
        4: {"action": "go", "distance": 1},
        5: {"action": "stop", "distance": 1},
    }
    worker = Worker(line, process, answers)
    worker.serve()
    line.close()
    assert told(process) == [
        '["resume", "/newest", 1]',
        '["save", "/checkpoint", false]',
        '["save", "/checkpoint", true]',
    ]
    assert process.returncode == 0
    asked = [(message["ask"], message.get("step")) for message in worker.heard]
    assert asked == [
        ("phase", None),
        *[("due", 2), ("save", 2), ("publish", 2)],
        ("due", 4),
        *[("due", 5), ("save", 5), ("publish", 5)],
    ]
    assert worker.heard[1] == {"ask": "due", "step": 2, "steps": 9, "loss": 1.5, "samples": 1, "tokens": None}


def test_its_last_step_is_told_when_it_ends(tmp_path: Path) -> None:
    line = Line()
    process = start(tmp_path, LOWTIDE_SOCKET=line.path)
    worker = Worker(line, process, {1: {"action": "go", "distance": 100}})
    worker.serve()
    line.close()
    assert told(process)[-1] == "end"
    assert worker.heard[-1] == {"ask": "step", "step": 9}


def test_a_worker_that_is_gone_ends_the_script(tmp_path: Path) -> None:
    line = Line()
    process = start(tmp_path, LOWTIDE_SOCKET=line.path)

    def hear_and_go() -> None:
        assert line.next(30.0) is not None
        line.close()

    thread = threading.Thread(target=hear_and_go)
    thread.start()
    told(process)
    thread.join()
    assert process.returncode != 0


def test_a_fork_of_the_script_does_not_talk(tmp_path: Path) -> None:
    code = (
        "import lowtide, os, json\n"
        "lowtide.due(1)\n"
        "if os.fork() == 0:\n"
        "    os._exit(0 if lowtide.due(2) is False else 1)\n"
        "print(json.dumps(os.waitstatus_to_exitcode(os.wait()[1])))"
    )
    line = Line()
    process = start(tmp_path, code, LOWTIDE_SOCKET=line.path)
    worker = Worker(line, process, {})
    worker.serve()
    line.close()
    assert [json.loads(text) for text in told(process)] == [0]
    assert [message["step"] for message in worker.heard] == [1]
