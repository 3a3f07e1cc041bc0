"""A provider's server on loopback, and the product's session that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.http.session import Http, shared
from tests.unit.orchestrator.loopback import ProviderServer


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    server = ProviderServer()
    yield server
    server.stop()


@pytest.fixture
def cache_folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of the product's session, which is closed when the test ends."""
    folder = tmp_path / "cache"
    yield folder
    for used in (folder, *folder.glob("later")):
        shared(used).close()


@pytest.fixture
def http(cache_folder: Path) -> Http:
    return shared(cache_folder)
