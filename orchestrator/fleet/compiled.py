"""The one place where functions are handed to the compiler.
In: a function on numbers and arrays. Out: the same, compiled when it is first called and kept for later processes.
What `path`, `bound`, `trim`, `room`, `settle` and `squeeze` do job by job and slot by slot is marked with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` in machine code; it lets other threads run meanwhile."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
