"""The line that says why: of real tracebacks, of messages of many lines, of what torchrun prints."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from jobs.spec import Unavailable
from jobs.telling import telling


class StopTraining(BaseException):
    """Named as no error is."""


def traced(act: Callable[[], object]) -> str:
    try:
        act()
    except BaseException:
        return traceback.format_exc()
    raise AssertionError


def stop() -> None:
    raise StopTraining("enough")


def chained() -> None:
    try:
        raise OSError(28, "No space left on device")
    except OSError as fault:
        raise Unavailable("/c: No space left on device") from fault


def hinting() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered\nFor debugging consider\nCompile with `X` to see.\n")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (stop, f"{__name__}.StopTraining: enough"),
        (chained, "jobs.spec.errors.Unavailable: /c: No space left on device"),
        (hinting, "RuntimeError: CUDA error: device-side assert triggered"),
        (lambda: compile("a b", "x.py", "exec"), "SyntaxError: invalid syntax"),
        (lambda: dict[str, int]()["a"], "KeyError: 'a'"),
    ],
)
def test_it_is_the_last_exceptions_own_line(act: Callable[[], object], says: str) -> None:
    assert telling(traced(act)) == says
    noise = "W0101 a warning: of something\n"
    assert telling(noise + traced(act) + noise) == says


def test_an_exception_that_carries_anothers_traceback_is_told_by_the_others_line() -> None:
    inner = traced(chained)
    outer = f"RuntimeError: Caught OSError in DataLoader worker process 0.\nOriginal {inner}"
    assert telling(f"Traceback (most recent call last):\n  File x\n{outer}") == telling(inner)


def test_torchruns_summary_says_less_than_the_ranks_own_error() -> None:
    ranks = "".join(f"[rank1]: {line}" for line in traced(hinting).splitlines(keepends=True))
    summary = (
        "Traceback (most recent call last):\n  File x\ntorch.distributed.errors.ChildFailedError: \n====\nFAILED\n"
    )
    assert telling(ranks + summary) == "RuntimeError: CUDA error: device-side assert triggered"


@pytest.mark.parametrize(("text", "says"), [("", ""), ("\n \n", ""), ("one\n  two  \n\n", "two")])
def test_without_an_exception_it_is_the_last_line(text: str, says: str) -> None:
    assert telling(text) == says
