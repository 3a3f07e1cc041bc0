"""Compiles the NVML stand-in where a C compiler exists.
In: nvml.c beside this file. Out: a folder that holds libnvidia-ml.so.1, to put on LD_LIBRARY_PATH.
Test fixtures call it; without a compiler they skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


def compiler() -> str | None:
    """The C compiler's path, or None."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """`folder` after libnvidia-ml.so.1 was compiled into it."""
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler found: install gcc to build the NVML stand-in")
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-D_GNU_SOURCE", f"-Wl,-soname,{library.name}"]
    subprocess.run([command, *flags, "-o", str(library), str(SOURCE), "-lm"], check=True)
    return folder


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of this process with the library in `folder` first, and `settings` as NVML_STANDIN_<name>."""
    paths = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path),
        **{f"NVML_STANDIN_{name.upper()}": value for name, value in settings.items()},
    }
