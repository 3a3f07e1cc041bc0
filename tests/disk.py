"""A small disk of a test's own, and filling it to its last byte.
In: a folder. Out: a file system of so many bytes mounted there; Unavailable where only root could.
The tests of full disks and the fault campaign break on it what a machine's disk would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from jobs.spec import Unavailable

CHUNK = bytes(1 << 20)


def mount(folder: Path, size_bytes: int) -> None:
    """Make the folder a file system of its own, in memory. Raises Unavailable where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise Unavailable("only root can mount a small file system")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise Unavailable(f"no file system can be mounted here: {made.stderr.strip()}")


def resize(folder: Path, size_bytes: int) -> None:
    """Give a mounted one another size; what is on it stays."""
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Take it away with all that is on it, also where a process still has its files open."""
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> int:
    """Write zeros into the file until its disk has no room left; the file's size in bytes."""
    with path.open("wb", buffering=0) as file:
        for chunk in (CHUNK, CHUNK[:4096]):
            try:
                while file.write(chunk) == len(chunk):
                    pass
            except OSError:
                continue
    return path.stat().st_size
