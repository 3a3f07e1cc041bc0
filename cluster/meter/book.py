"""The meter's book: closed pieces become rows, and rows go to the spool with what a later meter goes on from.
In: pieces of energy with their device, owner and phase. Out: MeterRows on disk; a disk that refuses them delays them.
The meter keeps it; the controller pulls from the spool.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from cluster.api import MeterRow, Phase
from cluster.meter.owner import Owner
from cluster.meter.row import Piece
from cluster.meter.spool import Spool

log = logging.getLogger(__name__)

CPU, DRAM = "cpu", "dram"
"""The device names of the host's processors and memory; every other is the UUID of a GPU or of a slice of one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Book:
    """The rows of one host that are not on disk yet."""

    def __init__(self, spool: Spool, node: str) -> None:
        self._spool = spool
        self._node = node
        self._rows: list[MeterRow] = []

    def enter(self, pieces: Iterable[Piece], device: str, owner: Owner | None, phase: Phase) -> None:
        """Enter closed pieces of one device; `owner` is None for what no rank drew."""
        self._rows += [
            MeterRow(
                host_boot=self._spool.host_boot,
                device=device,
                seq=0,  # the spool numbers it
                node=self._node,
                start=_utc(piece.start_us),
                end=_utc(piece.end_us),
                energy_j=piece.energy_j,
                source=piece.source,
                phase=phase,
                job_id=owner.job_id if owner else None,
                segment_id=owner.segment_id if owner else None,
                rank=owner.rank if owner else None,
                uuid=None if device in (CPU, DRAM) else device,
            )
            for piece in pieces
        ]

    @property
    def empty(self) -> bool:
        """True while every row that was entered is on disk."""
        return not self._rows

    def write(self, state: dict[str, Any]) -> None:
        """Append the rows, with the state at their end; a disk that refuses keeps them here for the next time."""
        try:
            self._spool.append(self._rows, state)
        except OSError as fault:
            log.error("the spool refuses rows (%s); %d wait in memory", fault, len(self._rows))
            return
        self._rows = []


def _utc(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)
