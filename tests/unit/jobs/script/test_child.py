"""The script's process: its errors, its end, and that it goes with its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.script.child import Child, cause

PYTHON = sys.executable


def ended(child: Child) -> int:
    """Its exit code; the test's own time limit ends a wait that is in vain."""
    while (code := child.code()) is None:
        time.sleep(0.02)
    return code


def test_its_last_words_are_kept_and_passed_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; sys.stderr.write('10%\\r50%\\r100%\\n'); raise ValueError('no data')"
    child = Child([PYTHON, "-c", code], str(tmp_path), {})
    assert ended(child) == 1
    words = child.last_words()
    child.close()
    assert words.splitlines()[0] == "100%" and words.endswith("ValueError: no data")
    assert cause(1, words) == "exit code 1: ValueError: no data"
    assert "ValueError: no data" in capfd.readouterr().err


def test_it_runs_in_its_folder_with_its_environment_alone(tmp_path: Path) -> None:
    code = "import os; open('seen', 'w').write(os.getcwd() + os.environ['A'] + str('HOME' in os.environ))"
    child = Child([PYTHON, "-c", code], str(tmp_path), {"A": "!"})
    assert ended(child) == 0
    child.close()
    assert (tmp_path / "seen").read_text() == f"{tmp_path}!False"


def test_a_command_that_is_none_says_so(tmp_path: Path) -> None:
    child = Child(["no-such-command"], str(tmp_path), {"PATH": os.environ["PATH"]})
    assert cause(ended(child), child.last_words()) == "exit code 1: no-such-command: No such file or directory"
    child.close()


def test_it_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, time\n"
        "open('pid', 'w').write(str(subprocess.Popen(['sleep', '300']).pid))\n"
        "open('ready', 'w')\n"
        "time.sleep(300)"
    )
    child = Child([PYTHON, "-c", code], str(tmp_path), {"PATH": os.environ["PATH"]})
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    grandchild = psutil.Process(int((tmp_path / "pid").read_text()))
    child.terminate()
    assert ended(child) == -signal.SIGTERM
    child.close()
    while grandchild.is_running() and grandchild.status() != psutil.STATUS_ZOMBIE:  # killed, and not yet gone
        time.sleep(0.02)


def test_it_dies_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from jobs.script.child import Child\n"
        "print(Child(['sleep', '300'], '/', {'PATH': '/usr/bin:/bin'}).pid, flush=True)\n"
        "time.sleep(300)"
    )
    worker = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    script = psutil.Process(int(worker.stdout.readline()))
    while "sleep" not in script.name():
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    gone, alive = psutil.wait_procs([script], timeout=60)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (1, "Traceback\nValueError: a\nW0101 some noise", "exit code 1: ValueError: a"),
        (1, "[rank0]: torch.OutOfMemoryError: CUDA", "exit code 1: torch.OutOfMemoryError: CUDA"),
        (2, "usage: train.py\ntrain.py: error: no --steps", "exit code 2: train.py: error: no --steps"),
        (3, "", "exit code 3: it wrote nothing to stderr"),
        (-9, "", "SIGKILL (out of memory?): it wrote nothing to stderr"),
        (-6, "terminate called", "SIGABRT: terminate called"),
    ],
)
def test_one_line_says_why_it_ended(code: int, words: str, says: str) -> None:
    assert cause(code, words) == says
