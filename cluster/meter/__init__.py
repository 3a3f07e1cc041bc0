"""Energy meters: one per host, from NVML counters and CPU estimates to rows by rank, device and phase.
In: owners that register, mark phases and are released. Out: MeterRows, held in a spool until acknowledged.
Workers use `host_meter`; the cluster's door uses `collect` and `acknowledge`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.meter.owner import Owner

if TYPE_CHECKING:
    from cluster.meter.actor import MeterHandle, acknowledge, collect, host_meter
    from cluster.meter.nvml import uuids_of

__all__ = ["MeterHandle", "Owner", "acknowledge", "collect", "host_meter", "uuids_of"]


def __getattr__(name: str) -> Any:
    """Names that need Ray or NVML, imported when first asked for: a Meter itself needs neither."""
    if name == "uuids_of":
        from cluster.meter import nvml

        return nvml.uuids_of
    if name in __all__:
        from cluster.meter import actor

        return getattr(actor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
