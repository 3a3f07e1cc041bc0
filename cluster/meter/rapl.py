"""The processors' own energy counters, as Linux shows them: RAPL through powercap.
In: a folder like /sys/class/powercap. Out: joules of all packages and of their memory, or None where unreadable.
`host` takes them before any estimate; `doctor` says how to open them where only root may read.

A package holds its cores and its graphics, so these are left out; memory lies beside it (Intel SDM 3B, 16.10), so it
is added; `psys` holds all of them and more, so it is left out; a package that a second interface (MMIO) shows again is
counted once. Counters wrap after max_energy_range_uj, some 20 minutes of a busy server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.meter.clock import Instant

log = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")
MOST_W = 1000.0
"""No package draws this much, nor its memory: a counter that rises faster was set back in between."""
STEP_S = 0.1
"""What a counter may be ahead or behind of the reading's clock."""
OPEN = (
    "echo 'z /sys/class/powercap/intel-rapl*/energy_uj 0444' > /etc/tmpfiles.d/rapl.conf && systemd-tmpfiles --create"
)
"""The line that opens the counters, run by root."""


@dataclass(frozen=True)
class Zone:
    """One counter: a package, or the memory of one."""

    name: str
    """E.g. `package-0`, or `package-0/dram`."""
    folder: Path
    range_j: float

    @property
    def is_memory(self) -> bool:
        """True for a package's memory."""
        return self.name.endswith("/dram")

    def energy_j(self) -> float:
        """The counter in J; OSError or ValueError where it cannot be read."""
        return int((self.folder / "energy_uj").read_text(encoding="ascii")) / 1e6


@dataclass(frozen=True)
class RaplEnergy:
    """What all packages, and all of their memory, drew between two takes in J; None where any was unreadable."""

    packages_j: float | None
    memory_j: float | None
    """None also where the packages have no counter of their memory."""


class Rapl:
    """All packages of a host. Readings that fail are tried again each time: opening the files takes effect at once."""

    def __init__(self, zones: Iterable[Zone]) -> None:
        self._zones = tuple(zones)
        self._fresh: dict[str, tuple[float, float]] = {}
        self._last: dict[str, tuple[float, float]] = {}
        self._refused: frozenset[str] = frozenset()

    @staticmethod
    def of(folder: Path = POWERCAP) -> Rapl:
        """The counters in `folder`; none where there is no powercap."""
        return Rapl(zones(folder))

    def read(self, at: Instant) -> None:
        """Read every counter; those that fail are said once."""
        fresh, refused = {}, {}
        for zone in self._zones:
            try:
                fresh[zone.name] = (at.monotonic_s, zone.energy_j())
            except (OSError, ValueError) as fault:
                refused[zone.name] = fault
        for name in refused.keys() - self._refused:
            log.warning("RAPL %s cannot be read (%s); its energy is estimated until it can", name, refused[name])
        self._fresh, self._refused = fresh, frozenset(refused)

    def take(self) -> RaplEnergy:
        """Energy since the last take."""
        drawn = {zone.name: self._drawn_j(zone) for zone in self._zones}
        self._last = self._fresh
        packages = [drawn[zone.name] for zone in self._zones if not zone.is_memory]
        memory = [drawn[zone.name] for zone in self._zones if zone.is_memory]
        return RaplEnergy(_sum(packages), _sum(memory) if len(memory) == len(packages) else None)

    def baseline(self) -> dict[str, tuple[float, float]]:
        """Monotonic s and J of each counter at the last take, from which a later process may go on."""
        return self._last

    def resume(self, baseline: Mapping[str, tuple[float, float]]) -> None:
        """Measure the next take from what an earlier process of this boot kept."""
        self._last = {name: (float(at_s), float(energy_j)) for name, (at_s, energy_j) in baseline.items()}

    def _drawn_j(self, zone: Zone) -> float | None:
        last, fresh = self._last.get(zone.name), self._fresh.get(zone.name)
        if last is None or fresh is None:
            return None
        most_j = MOST_W * (fresh[0] - last[0] + STEP_S)
        if most_j >= zone.range_j:  # so long that the counter may have wrapped twice
            return None
        energy_j = fresh[1] - last[1]
        if energy_j < 0:
            energy_j += zone.range_j
        return energy_j if 0 <= energy_j <= most_j else None


def zones(folder: Path = POWERCAP) -> list[Zone]:
    """The packages and their memory, each once, whether their counters may be read or not."""
    found: dict[str, Zone] = {}
    for path in sorted(folder.glob("intel-rapl*:*"), key=lambda path: (path.name.startswith("intel-rapl-mmio"), path)):
        try:
            name = _name(path)
            if name.startswith("package"):
                found.setdefault(name, Zone(name, path, _range_j(path)))
            elif name == "dram":
                name = f"{_name(path.with_name(path.name.rpartition(':')[0]))}/dram"
                found.setdefault(name, Zone(name, path, _range_j(path)))
        except (OSError, ValueError) as fault:
            log.warning("%s is no counter of energy (%s); left out", path, fault)
    return list(found.values())


def advice(folder: Path = POWERCAP) -> str:
    """What this host's RAPL offers, in one line, and how to open it where it may not be read."""
    there = zones(folder)
    if not there:
        return "no RAPL here; CPU energy is estimated, and every report says so"
    try:
        for zone in there:
            zone.energy_j()
    except PermissionError:
        return f"only root may read it, so CPU energy is estimated; to open it, as root: {OPEN}"
    except (OSError, ValueError) as fault:
        return f"it cannot be read ({fault}); CPU energy is estimated"
    return f"reads {', '.join(zone.name for zone in there)}"


def _name(path: Path) -> str:
    return (path / "name").read_text(encoding="ascii").strip()


def _range_j(path: Path) -> float:
    return int((path / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if parts and len(known) == len(parts) else None
