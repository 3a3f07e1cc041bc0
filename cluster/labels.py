"""Where a segment's workers go: the labels that a node must have.
In: an order, and what is free on the nodes. Out: Ray's label selector.
The driver of a segment hands it to Ray Train; `attachment` reads the same labels of nodes.

Ray packs a group onto few nodes, and begins with the emptiest of those that it may take: so small segments would take
whole nodes from who needs one. The controller names the nodes instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.api import SegmentOrder

ZONE = "carbon-zone"
"""Whoever starts a node gives it this label: `ray start --labels carbon-zone=DE`."""
GPU_KIND = "ray.io/accelerator-type"
"""Ray gives it to nodes with GPUs by itself."""


NODE = "ray.io/node-id"
"""Each node's own."""


def selector(order: SegmentOrder, free: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The labels of the nodes that may hold the segment's workers: its zone, and its kind of GPU where it names one.

    And the nodes that were chosen for it, while these have room for all workers; `free` is what each node has free, by
    node and resource. Since the choice others may have come, or a node may have gone.
    """
    workers = order.spec.workers
    found = {ZONE: order.zone} | ({GPU_KIND: workers.gpu_kind} if workers.gpu_kind is not None else {})
    if order.nodes and sum(_fit(order, free.get(node, {})) for node in order.nodes) >= order.workers:
        found[NODE] = f"in({','.join(order.nodes)})"  # Ray takes a blank for a part of the name
    return found


def _fit(order: SegmentOrder, free: Mapping[str, float]) -> int:
    """How many of the workers fit."""
    workers = order.spec.workers
    by_cpu = int(free.get("CPU", 0.0) / workers.cpus + 1e-9)
    return min(by_cpu, int(free.get("GPU", 0.0) / workers.gpus + 1e-9)) if workers.gpus else by_cpu
