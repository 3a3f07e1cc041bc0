"""A provider's server on loopback, the product's session that asks it, no test at the turn of a slot; new databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.http.session import Http, shared
from tests.unit.orchestrator.loopback import ProviderServer

if TYPE_CHECKING:
    from tests.postgres import Server

NewDatabase = Callable[[], AbstractContextManager[str]]
"""The URL of a new and empty database."""


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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason='the driver of PostgreSQL is not installed (pip install ".[postgres]")')
    from tests.postgres import Server, program

    if program("initdb") is None or program("postgres") is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Makes databases of each kind that a site may have."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres_server")
        return server.schema

    @contextmanager
    def file() -> Iterator[str]:
        yield f"sqlite:///{tmp_path_factory.mktemp('site') / 'deep' / 'lowtide.db'}"

    return file


@pytest.fixture
def database(new_database: NewDatabase) -> Iterator[str]:
    """The URL of a new and empty database."""
    with new_database() as url:
        yield url
