"""The meter's book: rows in progress of owners and of the idle account, closed ones on their way to the spool.
In: what each device drew for whom, interval by interval. Out: MeterRows on disk; a disk that refuses them delays them.
The meter keeps it; the controller pulls from the spool.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from datetime import datetime, timedelta, timezone
from typing import Any

from cluster.api import MeterRow, Phase
from cluster.meter.owner import Charge, Owner
from cluster.meter.row import Drawn, OpenRow, Piece
from cluster.meter.spool import Spool

log = logging.getLogger(__name__)

CPU, DRAM = "cpu", "dram"
"""The device names of the host's processors and memory; every other is the UUID of a GPU or of a slice of one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Book:
    """The rows of one host that are not on disk yet, cut at UTC multiples of `slot_us`."""

    def __init__(self, spool: Spool, node: str) -> None:
        self.slot_us = 1
        self._spool = spool
        self._node = node
        self._rows: list[MeterRow] = []
        self._idle: dict[str, OpenRow] = {}

    def add(self, device: str, drawn: Drawn, since_us: int, until_us: int, charge: Charge | None) -> None:
        """Go on with a row of an owner, or of the idle account where `charge` is None; a new one begins `since_us`."""
        rows = self._idle if charge is None else charge.rows
        row = rows.setdefault(device, OpenRow(since_us))
        self._enter_for(charge, row.add(until_us, drawn, self.slot_us), device)

    def pass_by(self, device: str, since_us: int, until_us: int) -> None:
        """Nothing of a device is idle until then: its idle row goes on from there."""
        row = self._idle.setdefault(device, OpenRow(since_us))
        self._enter_for(None, row.skip(until_us), device)

    def close(self, charge: Charge) -> None:
        """Cut the owner's rows."""
        for device, row in charge.rows.items():
            self._enter_for(charge, row.cut(), device)

    def close_unmetered(
        self, owner: Owner, phase: Phase, rows: Mapping[str, OpenRow], most_us: int, now_us: int
    ) -> None:
        """What was read of an owner that died unseen, then `most_us` in which it may have lived, as unmetered."""
        for device, row in rows.items():
            part = row.open_part()
            end_us = min(now_us, part.end_us + most_us)
            self._enter(row.add(end_us, Drawn(None, part.source), self.slot_us), device, owner, phase)
            self._enter(row.cut(), device, owner, phase)

    def close_idle(self) -> None:
        """Cut the idle account's rows."""
        for device, row in self._idle.items():
            self._enter_for(None, row.cut(), device)

    def idle_state(self) -> dict[str, Any]:
        """The idle account's rows in progress, as JSON."""
        return {device: astuple(row.open_part()) for device, row in self._idle.items()}

    def resume_idle(self, state: Mapping[str, Any]) -> None:
        """Go on with the idle rows that an earlier process kept."""
        self._idle = {device: OpenRow(*part) for device, part in state.items()}

    @property
    def empty(self) -> bool:
        """True while every closed row is on disk."""
        return not self._rows

    def write(self, state: dict[str, Any]) -> None:
        """Append the closed rows, with the state at their end; a disk that refuses them leaves them here."""
        try:
            self._spool.append(self._rows, state)
        except OSError as fault:
            log.error("the spool refuses rows (%s); %d wait in memory", fault, len(self._rows))
            return
        self._rows = []

    def _enter_for(self, charge: Charge | None, pieces: Iterable[Piece], device: str) -> None:
        if charge is None:
            self._enter(pieces, device, None, "idle")
        else:
            self._enter(pieces, device, charge.owner, charge.phase)

    def _enter(self, pieces: Iterable[Piece], device: str, owner: Owner | None, phase: Phase) -> None:
        """Closed pieces of one device become rows; `owner` is None for what no rank drew."""
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


def _utc(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)
