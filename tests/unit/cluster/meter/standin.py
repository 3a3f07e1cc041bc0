"""The NVML stand-in for the tests of this folder: built once, and asked in processes of their own.
In: settings of the stand-in. Out: what a piece of code printed that ran on it.
The library is found when a process starts, so no test can load it into itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.nvml import build

GPU = "GPU-00000000-0000-0000-0000-000000000000"
"""UUID of its first GPU."""


def environment(folder: Path, **settings: str) -> dict[str, str]:
    return {**build.environment(folder, **settings), "PYTHONPATH": os.pathsep.join(sys.path)}


def python(code: str, env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
