"""The lowtide command, called in this process as a user calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from orchestrator.cli import main

Lowtide = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lowtide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lowtide:
    """From arguments to exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lowtide", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
