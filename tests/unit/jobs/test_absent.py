"""What DeepSpeed would import in vain stays out of a worker's start, and can be imported afterwards.
In: modules of Python's own. Out: nothing.
jobs.engine keeps mlflow out while it imports DeepSpeed.
"""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from jobs.engine import _absent


def test_what_is_absent_cannot_be_imported_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with _absent("colorsys"), pytest.raises(ImportError):
        import_module("colorsys")
    assert import_module("colorsys").rgb_to_yiq(0, 0, 0) == (0, 0, 0)


def test_what_is_imported_already_stays() -> None:
    import wave

    with _absent("wave"):
        assert sys.modules["wave"] is wave
    assert sys.modules["wave"] is wave


def test_an_error_leaves_it_importable() -> None:
    with pytest.raises(KeyError), _absent("chunk_that_is_not_there"):
        raise KeyError
    assert "chunk_that_is_not_there" not in sys.modules
