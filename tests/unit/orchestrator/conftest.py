"""A provider's server on loopback, the product's session that asks it, and no test at the turn of a slot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.http.session import Http, shared
from tests.unit.orchestrator.loopback import ProviderServer


@pytest.fixture(autouse=True)
def not_at_the_turn_of_a_slot() -> None:
    """Waits where the hour, or five minutes of it, are about to end, so that a test's answers lie in one slot."""
    left_s = 300 - time.time() % 300
    if left_s < 5:
        time.sleep(left_s + 0.01)


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
