"""Where a run is written: the kinds of loggers, and how one is named.
In: `tensorboard:FOLDER`, `wandb:PROJECT` or `mlflow:URI`. Out: a Logger; InputError or Unavailable where it cannot be.
`lowtide report --to` and the site file's `loggers` name them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from jobs.spec import InputError, Unavailable
from orchestrator.loggers.series import Run

KINDS = {"tensorboard": "FOLDER", "wandb": "PROJECT", "mlflow": "URI"}
"""Each kind with what names its place; the module of the same name beside this one writes it."""


class Logger(Protocol):
    """Writes runs to one place. Raises Unavailable where that does not answer."""

    def write(self, run: Run) -> None:
        """Bring the run there up to date: what it has is not written again."""

    def close(self) -> None:
        """Write out what is still held, and end."""


def open_logger(text: str, folder: Path) -> Logger:
    """The logger that `KIND:PLACE` names; what it keeps on this machine by itself goes into `folder`.

    Raises InputError for an unknown kind or a missing place, Unavailable where its library is not installed.
    """
    kind, _, place = text.partition(":")
    if kind not in KINDS or not place:
        known = ", ".join(f"{name}:{what}" for name, what in KINDS.items())
        raise InputError(f"--to: {text!r} names no logger; choose from {known}")
    try:
        make = import_module(f"orchestrator.loggers.{kind}").open_at
    except ImportError as fault:
        package = (fault.name or "").partition(".")[0]
        if package in ("", "orchestrator", "jobs"):
            raise
        raise Unavailable(
            f"{kind} needs the package {package}, which is not installed; pip install 'lowtide[{kind}]'"
        ) from None
    return cast(Callable[[str, Path], Logger], make)(place, folder)
