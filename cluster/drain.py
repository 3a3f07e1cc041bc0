"""A node that is to go: Ray was told to drain it (a preemption, say), so what runs there is saved before it does.
In: the nodes that Ray drains, asked once a second. Out: a segment halted at the control actor, once.
Each segment's driver, and one of its ranks on each node, watch the node that they are on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timezone

from cluster.api import Desire
from jobs.spec.units import iso

PERIOD_S = 1.0
ANSWER_TIMEOUT_S = 10.0
ENDS_AS = "moved"
"""Not paused: nobody chose to pause, and it goes on elsewhere at once."""


class DrainWatch:
    """One for a process of a segment; a thread of its own asks."""

    def __init__(self, segment_id: str, desire: Desire) -> None:
        self._segment_id, self._desire = segment_id, desire
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lowtide-drain", daemon=True)

    def open(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._ending.set()

    def _watch(self) -> None:
        from ray.exceptions import RayError

        while not self._ending.wait(PERIOD_S):
            try:
                why = notice(_own_node(), _draining())
                if why:
                    _halt(self._segment_id, self._desire, why)
                    print(f"lowtide: {why}; saving", flush=True)
                    return
            except (RayError, RuntimeError, ValueError, OSError):  # Ray is gone for now: asked again
                continue


def notice(node_id: str, draining: dict[str, int]) -> str:
    """Why the node is to go, from Ray's draining nodes and their deadlines (ms of the epoch, 0: none); else empty."""
    if node_id not in draining:
        return ""
    deadline_ms = draining[node_id]
    by = f" by {iso(datetime.fromtimestamp(deadline_ms / 1000, timezone.utc))}" if deadline_ms else ""
    return f"node {node_id[:8]} is drained{by}"


def _own_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _draining() -> dict[str, int]:
    import ray

    state: Callable[[], dict[str, int]] = ray._private.state.state.get_draining_nodes
    return state()


def _halt(segment_id: str, desire: Desire, why: str) -> None:
    import ray

    from cluster.control import control_actor

    ray.get(control_actor().halt.remote(segment_id, desire, ENDS_AS, why), timeout=ANSWER_TIMEOUT_S)
