"""The ground of passes, as a fixture: on SQLite, and on PostgreSQL where that is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.api import Node
from orchestrator.site import resolve_site
from orchestrator.store import Store, forecasts
from tests.standin import StandInCluster
from tests.unit.orchestrator.controller.ground import CLEAN, DIRTY, T0, Bench, grid


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    zones = {"DE": {"provider": "demo", "gpus": 4}}
    site = resolve_site({"zones": zones, "slot": "1h", "renew_within": "30m", "database": database}, tmp_path, "test")
    store = Store(site.store_url)
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", T0, grid([CLEAN, DIRTY, DIRTY, DIRTY, CLEAN] + [DIRTY] * 20), None)
    yield Bench(site, store, StandInCluster(free=[Node("n", "node", "DE", 4, 16, 4, 16)]))
    store.close()
