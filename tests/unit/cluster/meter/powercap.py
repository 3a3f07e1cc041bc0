"""A powercap folder as Linux shows it, of real files: packages, cores, memory, psys, and the MMIO interface's twin.
In: what each counter drew. Out: files `name`, `energy_uj`, `max_energy_range_uj` under `intel-rapl:*`.
`refuse` and `remove` do to a counter what permissions and drivers do.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Powercap:
    """Counters by the folder's name, e.g. `intel-rapl:0:1`; each wraps after `range_j`."""

    folder: Path
    range_j: float = 1000.0
    total_j: dict[str, float] = field(default_factory=dict)

    def add(self, zone: str, name: str, start_j: float = 0.0) -> None:
        path = self.folder / zone
        path.mkdir(parents=True)
        (path / "name").write_text(name + "\n")
        (path / "max_energy_range_uj").write_text(f"{self.range_j * 1e6:.0f}\n")
        self.total_j[zone] = start_j
        self.draw(zone, 0.0)

    def draw(self, zone: str, energy_j: float) -> None:
        self.total_j[zone] += energy_j
        counter = self.folder / zone / "energy_uj"
        if counter.parent.exists() and not counter.is_dir():
            counter.write_text(f"{self.total_j[zone] % self.range_j * 1e6:.0f}\n")

    def refuse(self, zone: str) -> None:
        """Unreadable from now on: a folder in its place, for root may read any file."""
        (self.folder / zone / "energy_uj").unlink()
        (self.folder / zone / "energy_uj").mkdir()

    def allow(self, zone: str) -> None:
        (self.folder / zone / "energy_uj").rmdir()
        self.draw(zone, 0.0)

    def remove(self, zone: str) -> None:
        shutil.rmtree(self.folder / zone)


def two_sockets(folder: Path, range_j: float = 1000.0) -> Powercap:
    """A server with all that could be counted twice."""
    powercap = Powercap(folder, range_j)
    for socket in (0, 1):
        powercap.add(f"intel-rapl:{socket}", f"package-{socket}", start_j=range_j - 100)
        powercap.add(f"intel-rapl:{socket}:0", "core")
        powercap.add(f"intel-rapl:{socket}:1", "uncore")
        powercap.add(f"intel-rapl:{socket}:2", "dram")
        powercap.add(f"intel-rapl-mmio:{socket}", f"package-{socket}")
    powercap.add("intel-rapl:2", "psys")
    (folder / "intel-rapl").mkdir()
    return powercap
