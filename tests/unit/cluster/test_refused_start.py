"""Ray's job API over real HTTP: a start that it refuses is Refused, one that nobody answers Unavailable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cluster.ray_cluster import JobApi, RayCluster
from jobs.spec import Refused, Unavailable
from tests.unit.cluster.test_order import order


class Attached:
    """A line into Ray that answers: only the job API is looked at here."""

    address = "127.0.0.1:6379"

    def ask(self, *asked: Any) -> None:
        """The control actor has nothing against it."""

    def close(self) -> None:
        """Nothing is open."""


class Answers(BaseHTTPRequestHandler):
    """A dashboard that knows no job and takes none."""

    def do_GET(self) -> None:
        """No job is known."""
        self._say(404, "Job tiny-1 does not exist")

    def do_POST(self) -> None:
        """No job is taken."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(400, "ValueError: the label selector is wrong\nTraceback ...")

    def _say(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *told: Any) -> None:
        """Not to the tests' output."""


@contextmanager
def cluster() -> Iterator[tuple[RayCluster, ThreadingHTTPServer]]:
    """A cluster whose dashboard is this server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = RayCluster.__new__(RayCluster)
    found._ray, found._dashboard_url = Attached(), f"http://127.0.0.1:{server.server_port}"  # type: ignore[assignment]
    found._jobs = JobApi(found._dashboard_url)
    try:
        yield found, server
    finally:
        server.shutdown()
        server.server_close()


def test_a_start_that_ray_answers_with_a_refusal_is_refused() -> None:
    with cluster() as (ray, _), pytest.raises(Refused, match="refuses it: .*the label selector is wrong"):
        ray.start(order())


def test_a_start_that_nobody_answers_is_unavailable() -> None:
    with cluster() as (ray, server):
        server.shutdown()
        server.server_close()
        with pytest.raises(Unavailable) as found:
            ray.start(order())
    assert not isinstance(found.value, Refused)


def test_a_secret_that_is_not_there_refuses_the_one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDE_TOKEN", raising=False)
    spec = order().spec.model_copy(update={"secrets": ["TIDE_TOKEN"]})
    with cluster() as (ray, _), pytest.raises(Refused, match="TIDE_TOKEN is not in the controller's"):
        ray.start(replace(order(), spec=spec))
