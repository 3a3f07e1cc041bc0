"""A segment's driver attaches to the Ray that it is a job of, whatever other Rays its host has.
In: an order as it is submitted; the variables of a driver. Out: nothing.
Ray gives its jobs the RAY_ADDRESS of whichever Ray it finds on the host.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster import segment
from cluster.order import ADDRESS
from cluster.ray_cluster import RayCluster
from tests.unit.cluster.test_order import order


def test_an_order_names_its_own_ray_and_the_driver_attaches_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: dict[str, Any] = {}
    cluster = RayCluster.__new__(RayCluster)
    cluster._ray = SimpleNamespace(address="10.0.0.1:6379")  # type: ignore[assignment]
    cluster._jobs = SimpleNamespace(submit_job=lambda **given: submitted.update(given))  # type: ignore[assignment]
    cluster._dashboard_url = "http://10.0.0.1:8265"
    cluster._submit(order())
    variables = submitted["runtime_env"]["env_vars"]
    assert variables[ADDRESS] == "10.0.0.1:6379"
    assert variables["RAY_API_SERVER_ADDRESS"] == "http://10.0.0.1:8265"

    attached: list[Any] = []
    monkeypatch.setattr(ray, "init", lambda address=None, **given: attached.append(address))
    monkeypatch.setenv(ADDRESS, variables[ADDRESS])
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    segment._attach()
    assert attached == ["10.0.0.1:6379"]
