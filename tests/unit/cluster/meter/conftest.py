"""The NVML stand-in's library, built once for all tests of the meter.
In: a C compiler. Out: the folder that holds it; tests that need it skip without a compiler.
`standin` runs code on it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nvml import build


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if build.compiler() is None:
        pytest.skip("no C compiler for the NVML stand-in (install gcc)")
    return build.build(tmp_path_factory.mktemp("nvml"))
