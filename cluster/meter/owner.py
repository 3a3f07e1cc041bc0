"""Who is charged: a rank with its process and GPUs, and what the meter knows of it.
In: what a rank registers. Out: an Owner, and its Charge with the rows in progress, also as JSON for the spool's state.
The meter attributes energy to charges; a later meter of the same boot goes on from their JSON.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from cluster.api import Phase
from cluster.meter.process import Process
from cluster.meter.row import OpenRow


@dataclass(frozen=True)
class Owner:
    """A rank (-1: the segment's driver) with its process on this host and the GPUs that it holds."""

    job_id: str
    segment_id: str
    rank: int
    pid: int
    gpu_uuids: tuple[str, ...] = ()
    power_limit_w: int | None = None
    """What each of them may draw while it holds them; None leaves their limits as they are."""


@dataclass
class Charge:
    """What the meter knows of one registered owner."""

    owner: Owner
    process: Process
    phase: Phase
    cpu_s: float
    """CPU seconds of its process tree that are charged already."""
    rows: dict[str, OpenRow] = field(default_factory=dict)
    """By device."""

    def to_state(self) -> dict[str, Any]:
        """The owner as JSON, with the part of its rows that is not cut yet."""
        return {
            "owner": asdict(self.owner),
            "created_s": self.process.created_s,
            "phase": self.phase,
            "cpu_s": self.cpu_s,
            "rows": {device: astuple(row.open_part()) for device, row in self.rows.items()},
        }


def owner_of(state: dict[str, Any]) -> tuple[Owner, dict[str, OpenRow]]:
    """The owner that `Charge.to_state` wrote down, and its rows in progress."""
    owner = Owner(**{**state["owner"], "gpu_uuids": tuple(state["owner"]["gpu_uuids"])})
    return owner, {device: OpenRow(*part) for device, part in state["rows"].items()}
