"""Who holds which part of a GPU: whole GPUs, MIG slices, and owners that share either.
In: the GPUs of a host, what owners name. Out: each GPU's energy in parts of its holders, and the rest that is idle.
The meter books the parts; a part of what one sensor read is labelled `apportioned`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.meter.clock import Instant
from cluster.meter.gpu import Gpu, Slice
from cluster.meter.row import Drawn

log = logging.getLogger(__name__)

Holder = TypeVar("Holder", bound=Hashable)


@dataclass(frozen=True)
class Part(Generic[Holder]):
    """What one holder is charged for a device, by the UUID that the holder names; holder None is the idle account."""

    holder: Holder | None
    uuid: str
    drawn: Drawn
    size: float
    """Of one GPU: 1 for a whole one that nobody shares."""


class Gpus:
    """The GPUs of a host and the slices of them that owners hold."""

    def __init__(self, gpus: Iterable[Gpu], find: Callable[[str], Gpu | Slice | None]) -> None:
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._slices: dict[str, Slice] = {}
        self._find = find
        self._unknown: set[str] = set()

    @property
    def by_uuid(self) -> Mapping[str, Gpu]:
        """Those that are read; a GPU that was found later is among them from then on."""
        return self._gpus

    def look_for(self, uuids: Iterable[str], at: Instant) -> list[str]:
        """Find what owners hold and nobody has seen yet; returns the UUIDs of GPUs that are read from now on."""
        added = []
        for uuid in uuids:
            if uuid in self._gpus or uuid in self._slices:
                continue
            found = self._find(uuid)
            if found is None and uuid not in self._unknown:
                log.warning("NVML does not know GPU %s; it is unmetered until it does", uuid)
                self._unknown.add(uuid)
            gpu = found.parent if isinstance(found, Slice) else found
            if isinstance(found, Slice):
                self._slices[uuid] = found
            if gpu is not None and gpu.uuid not in self._gpus:
                self._gpus[gpu.uuid] = gpu
                gpu.read(at)
                gpu.take()
                added.append(gpu.uuid)
        return added

    def read(self, at: Instant) -> None:
        """Read every GPU."""
        for gpu in self._gpus.values():
            gpu.read(at)

    def take(self) -> dict[str, Drawn]:
        """What each GPU drew since the last take."""
        return {uuid: Drawn(gpu.take(), gpu.source) for uuid, gpu in self._gpus.items()}

    def parts(self, drawn: Mapping[str, Drawn], held: Sequence[tuple[Holder, str]]) -> list[Part[Holder]]:
        """`drawn` by GPU, in parts of those who hold a device, in equal parts where several hold the same.

        A whole GPU goes to its holders; a slice takes its share, and what no slice takes is idle. Slices that claim
        more than the whole are scaled to it. A device that nobody can read is unmetered for its holders.
        """
        parts: list[Part[Holder]] = []
        claims: dict[str, dict[str, float]] = {uuid: {} for uuid in drawn}
        for holder, uuid in held:
            gpu_uuid, share = self._place(uuid)
            if gpu_uuid in claims:
                claims[gpu_uuid][uuid] = share
            else:
                parts.append(Part(holder, uuid, Drawn(None, "nvml-counter"), 1.0))
        for gpu_uuid, shares in claims.items():
            parts += _apportion(gpu_uuid, drawn[gpu_uuid], shares, held)
        return parts

    def _place(self, uuid: str) -> tuple[str, float]:
        piece = self._slices.get(uuid)
        return (uuid, 1.0) if piece is None else (piece.parent.uuid, piece.share)


def weights(parts: Iterable[Part[Holder]]) -> dict[Holder | None, float]:
    """What each holder weighs in what its host draws for all of its GPUs: the J of its own, None for those of nobody.

    Where any GPU cannot be read, or none draws anything, they weigh by their number.
    """
    parts = list(parts)
    energies_j = [part.drawn.energy_j for part in parts if part.drawn.energy_j is not None]
    by_energy = len(energies_j) == len(parts) and math.fsum(energies_j) > 0
    found: dict[Holder | None, float] = {}
    for part in parts:
        weight = part.drawn.energy_j if by_energy and part.drawn.energy_j is not None else part.size
        found[part.holder] = found.get(part.holder, 0.0) + weight
    return found


def _apportion(
    gpu_uuid: str, drawn: Drawn, shares: Mapping[str, float], held: Sequence[tuple[Holder, str]]
) -> list[Part[Holder]]:
    """One GPU's energy to those who hold it or slices of it, and what is left of it."""
    whole = max(1.0, math.fsum(shares.values()))
    parts: list[Part[Holder]] = []
    for uuid, share in shares.items():
        holders = [holder for holder, named in held if named == uuid]
        part = share / whole / len(holders)
        parts += [Part(holder, uuid, _part(drawn, part), part) for holder in holders]
    rest = 1.0 - math.fsum(shares.values()) / whole
    if rest > 1e-9:
        parts.append(Part(None, gpu_uuid, _part(drawn, rest), rest))
    return parts


def _part(drawn: Drawn, part: float) -> Drawn:
    if part == 1.0:
        return drawn
    return Drawn(None if drawn.energy_j is None else drawn.energy_j * part, "apportioned")
