"""A Ray that is gone and has come back knows nothing; who was attached to the one before asks the new one at once.
In: a head and a node that die together, and start again at the same address. Out: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.attachment import Attachment
from jobs.spec import Unavailable
from tests.faults.nodes import Nodes, Shape

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    started = Nodes([Shape("DE", (0,))], os.environ, tmp_path / "nodes.log")
    try:
        started.start()
        yield started
    finally:
        started.end()


def test_the_next_question_goes_to_the_ray_that_has_come_back(nodes: Nodes) -> None:
    attachment = Attachment(nodes.address)
    try:
        before = {node.node_id for node in attachment.ask("nodes")}
        assert attachment.ask("control", "views", []) == {}
        nodes.lose()
        with pytest.raises(Unavailable, match="does not answer"):
            attachment.ask("control", "views", [])
        nodes.start()
        assert attachment.ask("control", "views", []) == {}

        nodes.lose()  # this time nobody asks while it is away
        nodes.start()
        assert attachment.ask("control", "views", []) == {}
        assert not before & {node.node_id for node in attachment.ask("nodes")}
    finally:
        attachment.close()
