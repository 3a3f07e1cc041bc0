"""What DeepSpeed compiles when a job first needs it: built once and by one process, its compiler named where missing.
In: PATH, CXX, the user's cache folder. Out: None, or one line that says what to install; loaded objects.
`lowtide doctor` shows the line; jobs.engine refuses to start without, and has DeepSpeed build by `guard`.

torch guards a build by a file that stays where the builder is killed, and everybody then waits for ever. Here a lock
of the kernel's goes with its holder, and whoever has it knows that such a file is a dead builder's: it goes, with what
was half built beside it, for a compiler that outlives its builder may be writing there still. The folder is this
installation's on this host alone: two that took turns in one would compile it anew each time, and what is compiled for
one host's processor may not run on another's. A folder that the user chose others may use, too: there a build's file
goes only where no process of its owner on this host has it open, so such a folder should be no other host's.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from jobs.spec import Unavailable

FOLDER = "TORCH_EXTENSIONS_DIR"
"""Environment variable that names torch's folder for what it compiles; where the user set it, it is left alone."""
_BUILD = "from jobs.compiler import load; load()"


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


def load() -> None:
    """Load DeepSpeed's communication for CPUs into this process, compiled first where it is not yet."""
    guard()
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is not None and builder.is_compatible():
        builder.load(verbose=False)  # DeepSpeed finds it loaded and asks torch no more


def guard() -> None:
    """Whatever DeepSpeed compiles in this process from here on, for GPUs or CPUs, is built by one process at a time."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    plain = OpBuilder.jit_load
    if hasattr(plain, "__wrapped__"):
        return

    @functools.wraps(plain)
    def alone(builder: Any, *arguments: Any, **named: Any) -> Any:
        with _alone():
            return plain(builder, *arguments, **named)

    OpBuilder.jit_load = alone


@contextmanager
def _alone() -> Iterator[None]:
    """No other process of lowtide's builds in the folder meanwhile; what a killed one left in the way is removed."""
    chosen = os.environ.get(FOLDER)
    folder = Path(chosen) if chosen is not None else _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob("*/lock"):
            if chosen is None or not _is_open(left):
                shutil.rmtree(left.parent, ignore_errors=True)
        os.environ[FOLDER] = str(folder)
        try:
            yield
        finally:
            if chosen is None:
                del os.environ[FOLDER]


def _is_open(file: Path) -> bool:
    """Whether some process of the file's owner has it open, as torch has while it builds."""
    try:
        about = file.stat()
    except FileNotFoundError:
        return False
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real != about.st_uid:
                continue
            for handle in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if os.path.samestat(handle.stat(), about):
                        return True
    return False


def _folder() -> Path:
    own = hashlib.sha256(f"{sys.prefix} {platform.node()}".encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("lowtide")) / "compiled" / own


def put_interpreter_on_path() -> None:
    """Let this process find what its virtual environment installed (ninja), be the environment activated or not."""
    scripts = str(Path(sys.executable).parent)
    folders = os.environ.get("PATH", "").split(os.pathsep)
    if scripts not in folders:
        os.environ["PATH"] = os.pathsep.join([scripts, *folders])
