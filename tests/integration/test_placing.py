"""Others take the room just before a segment's workers are placed: it is said for as long as they wait, and no longer.
In: an embedded Ray with four CPUs, of which another Ray job holds three. Out: nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.api import Cluster, SegmentOrder
from tests.integration.test_segments import ended, order, ray_in_de, watch

__all__ = ["order", "ray_in_de"]

HOLDER = """
import sys
import ray
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False  # this Ray lives on loopback, and a driver of it must, too
ray.init(sys.argv[1], logging_level="error")
group = ray.util.placement_group([{"CPU": 3}])
assert group.wait(60)
print("held", flush=True)
sys.stdin.readline()
ray.util.remove_placement_group(group)
"""


@contextmanager
def held(address: str) -> Iterator[subprocess.Popen[str]]:
    """Another job of the cluster that holds three CPUs until it is told to let go, or ends."""
    command = [sys.executable, "-c", HOLDER, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and "held" in iter(holder.stdout.readline, "").__next__()
        yield holder


def test_a_segment_whose_place_others_took_says_that_it_waits_and_the_wait_is_no_cost_of_its_start(
    ray_in_de: Cluster, order: Callable[..., SegmentOrder]
) -> None:
    with held(ray_in_de.address) as holder:  # type: ignore[attr-defined]  # of RayCluster, not of the protocol
        ray_in_de.start(order("placed-1", steps=4))
        waiting = watch(ray_in_de, "placed-1", lambda view: view.progress is not None)
        assert waiting.progress is not None and waiting.status == "running"
        assert waiting.progress.note.startswith("segment placed-1 waits for its workers' place since 20")
        assert (waiting.progress.phase, waiting.progress.trained_steps) == ("start", 0)
        holder.communicate("go\n", timeout=60)
        placed = watch(ray_in_de, "placed-1", lambda view: view.progress is not None and not view.progress.note)
        assert placed.status in ("running", "ended")
    result = watch(ray_in_de, "placed-1", ended).result
    assert result is not None and (result.ended, result.step) == ("done", 4)
    assert result.parts_s["place"] >= 5.0, "it is told apart from what a start costs"
    assert all(result.parts_s[part] >= 0.0 for part in ("driver", "controller", "workers"))
    assert "waits for its workers' place" in "".join(ray_in_de.logs("placed-1"))
