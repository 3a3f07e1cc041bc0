"""Saving: what a disk that is full, read-only or hung says while DeepSpeed writes is kept, not raised.
In: DeepSpeed's own checkpoint writer. Out: one that writes the same files, and the first fault of any.
jobs.engine puts it in; jobs.train asks for the fault once all ranks are there, for DeepSpeed's ranks wait for one
another inside a save, and one that left it by an error would leave the others waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.patience import GivenUp, Pulse, bounded
from jobs.spec import Unavailable

_LOOK_S = 1.0
_TORCH_SAYS = ("PytorchStreamWriter", "unexpected pos", "inline_container", "write(): fd")
"""What torch says of a disk that takes no more, in a RuntimeError."""


class Saving:
    """In the place of DeepSpeed's checkpoint engine: all else is as the given one has it."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._fault: Unavailable | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._given, name)

    def save(self, state_dict: Any, path: str) -> None:
        """Write one file, unless one before it failed."""
        self.attempt(Path(path), lambda: self._given.save(state_dict, path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder."""
        self.attempt(Path(path), lambda: self._given.makedirs(path, exist_ok=exist_ok))

    def attempt(self, path: Path, act: Callable[[], object]) -> None:
        """Do something that writes to `path`; a fault of the disk is kept for `check`."""
        if self._fault is not None:
            return
        try:
            bounded(str(path), lambda pulse: _watched(path, act, pulse))
        except Unavailable as fault:
            self._fault = fault
        except (OSError, RuntimeError) as fault:
            if not isinstance(fault, OSError) and not any(word in str(fault) for word in _TORCH_SAYS):
                raise
            said = fault.strerror if isinstance(fault, OSError) else None
            self._fault = Unavailable(f"{path}: {said or 'the disk takes no more (full, or its quota reached)'}")

    def check(self) -> None:
        """Raise what was kept, once."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault


def _watched(path: Path, act: Callable[[], object], pulse: Pulse) -> None:
    """Do it while a thread looks whether the file grows; where not even its size can be had, that is silence, too."""
    over = threading.Event()

    def look() -> None:
        size_bytes = -1
        while not over.wait(_LOOK_S):
            with suppress(OSError):
                if (now_bytes := path.stat().st_size) != size_bytes:
                    size_bytes = now_bytes
                    with suppress(GivenUp):
                        pulse.beat()

    threading.Thread(target=look, name="lowtide-saving", daemon=True).start()
    try:
        act()
    finally:
        over.set()
