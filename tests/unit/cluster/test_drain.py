"""When a node's drain concerns a segment; that it is saved then is the fault campaign's.
In: Ray's draining nodes. Out: nothing.
"""

from __future__ import annotations

from cluster.drain import notice

HERE, THERE = "4fd1" * 14, "77aa" * 14
NOON_MS = 1_772_366_400_000


def test_only_this_nodes_drain_is_a_notice_and_it_names_the_deadline() -> None:
    assert notice(HERE, {}) == notice(HERE, {THERE: NOON_MS}) == ""
    assert notice(HERE, {HERE: NOON_MS}) == "node 4fd14fd1 is drained by 2026-03-01T12:00:00Z"
    assert notice(HERE, {HERE: 0}) == "node 4fd14fd1 is drained"
