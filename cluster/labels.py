"""Where a segment's workers go: the labels that a node must have.
In: an order. Out: Ray's label selector.
The driver of a segment hands it to Ray Train; `attachment` reads the same labels of nodes.
"""

from __future__ import annotations

from cluster.api import SegmentOrder

ZONE = "carbon-zone"
"""Whoever starts a node gives it this label: `ray start --labels carbon-zone=DE`."""
GPU_KIND = "ray.io/accelerator-type"
"""Ray gives it to nodes with GPUs by itself."""


def selector(order: SegmentOrder) -> dict[str, str]:
    """The labels of the nodes that may hold the segment's workers: its zone, and its kind of GPU where it names one."""
    kind = order.spec.workers.gpu_kind
    return {ZONE: order.zone} | ({GPU_KIND: kind} if kind is not None else {})
