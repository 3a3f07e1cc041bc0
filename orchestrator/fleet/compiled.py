"""The one place where functions are handed to the compiler.
In: a function on numbers and arrays. Out: the same, compiled when it is first called and kept for later processes.
What `path`, `bound`, `trim`, `room`, `settle` and `squeeze` do job by job and slot by slot is marked with it.

What was compiled lies in the user's cache folder, for an installation may be read-only; NUMBA_CACHE_DIR names another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import platformdirs

Function = TypeVar("Function", bound=Callable[..., Any])

if not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = str(Path(platformdirs.user_cache_dir("lowtide")) / "compiled")


def compiled(function: Function) -> Function:
    """`function` in machine code; it lets other threads run meanwhile."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
