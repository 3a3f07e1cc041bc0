"""Under which power limit a segment runs: each rank tells the control actor what its meter set, or why it did not.
In: a rank's Cap as it comes and as it goes. Out: the segment's Cap, in its progress and its result.
The controller learns what a limit does only from segments that ran under it from beginning to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cluster.api import SegmentOrder, SegmentResult
from cluster.meter.limit import Cap

TIMEOUT_S = 30.0


def together(caps: Mapping[int, Cap], ranks: int) -> Cap:
    """The limit that holds on all `ranks`; None where some have none, or others, or did not say, and why if known."""
    refused = next((f"rank {rank}: {cap.refused}" for rank, cap in sorted(caps.items()) if cap.refused), None)
    limits_w = {cap.limit_w for cap in caps.values()}
    return Cap(limits_w.pop() if len(limits_w) == 1 and len(caps) == ranks else None, refused)


def tell(order: SegmentOrder, rank: int, cap: Cap) -> None:
    """A rank's word to the control actor, and to its log; nothing where the segment wishes for no limit."""
    if order.power_limit_w is None or rank < 0:
        return
    import ray
    from ray.exceptions import RayError

    from cluster.control import control_actor

    held = "no power limit" if cap.limit_w is None else f"a power limit of {cap.limit_w} W"
    print(f"lowtide: rank {rank} has {held}{f': refused: {cap.refused}' if cap.refused else ''}", flush=True)
    try:
        said = control_actor().limited.remote(order.segment_id, order.desire, rank, order.workers, cap)
        ray.get(said, timeout=TIMEOUT_S)
    except (RayError, ValueError, TimeoutError) as fault:
        print(f"lowtide: the control actor did not hear of rank {rank}'s power limit: {fault}", flush=True)


def is_refused(order: SegmentOrder) -> bool:
    """Whether some rank of the segment may not be limited: on its host, perhaps, and not on the others'."""
    if order.power_limit_w is None:
        return False
    import ray
    from ray.exceptions import RayError

    from cluster.control import control_actor

    try:
        return bool(ray.get(control_actor().refused.remote(order.segment_id), timeout=TIMEOUT_S))
    except (RayError, ValueError, TimeoutError):
        return False  # then its limit stands, and the result says that not every rank told


def with_cap(order: SegmentOrder, result: SegmentResult) -> SegmentResult:
    """The result with the limit under which the segment ran, as its ranks told; unknown where nobody could be asked."""
    if order.power_limit_w is None:
        return result
    import ray
    from ray.exceptions import RayError

    from cluster.control import control_actor

    try:
        cap = ray.get(control_actor().cap.remote(order.segment_id), timeout=TIMEOUT_S)
    except (RayError, ValueError, TimeoutError) as fault:
        cap = Cap(None, f"the control actor does not say ({fault})")
    if cap == Cap(None):
        cap = Cap(None, "not every rank said what holds for it")
    return replace(result, power_limit_w=cap.limit_w, power_limit_refused=cap.refused)
