"""The C++ compiler that DeepSpeed needs on CPUs: found, or named as missing before anything slow starts.
In: PATH and CXX. Out: None, or one line that says what to install.
`lowtide doctor` shows it; jobs.engine refuses to start without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from jobs.spec import Unavailable

_BUILD = "from deepspeed.comm.torch import build_shm_op; build_shm_op()"


def check() -> str | None:
    """None where DeepSpeed can build its CPU communication (C++ compiler and ninja); else what is missing."""
    put_interpreter_on_path()
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return (
            f"no C++ compiler: {compiler!r} is not on PATH, and DeepSpeed builds its CPU communication with one; "
            "install it (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++) or set CXX"
        )
    if shutil.which("ninja") is None:
        return "no ninja on PATH, which DeepSpeed builds its CPU communication with; pip install ninja"
    return None


def build() -> None:
    """Compile what DeepSpeed compiles on its first run on CPUs; quick where that is done. Unavailable if it fails."""
    if (missing := check()) is not None:
        raise Unavailable(missing)
    # In a process of its own: the caller keeps no torch in memory, and a process chooses its accelerator once.
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run([sys.executable, "-I", "-c", _BUILD], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"DeepSpeed's communication for CPUs could not be compiled: {last[0]}")


def put_interpreter_on_path() -> None:
    """Let this process find what its virtual environment installed (ninja), be the environment activated or not."""
    scripts = str(Path(sys.executable).parent)
    folders = os.environ.get("PATH", "").split(os.pathsep)
    if scripts not in folders:
        os.environ["PATH"] = os.pathsep.join([scripts, *folders])
