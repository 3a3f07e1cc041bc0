"""Whether the kernel was killing for want of memory where a process lived: control groups count such kills.
In: the processes of owners. Out: of one that is gone, whether it went about then; None where nobody can tell.
`charging` looks at every tick; the segment's driver asks for it where Ray says no more than that a worker is gone.

Docs: memory.events in the kernel's cgroup-v2.rst, memory.oom_control in cgroup-v1/memory.rst; both count kills by a
group's own limit and by the host's end of memory, v2 those of the groups below, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RECENT_S = 60.0
"""A process that the kernel kills may take so long to give its memory back, before it is gone."""


@dataclass
class _Count:
    """Kills in one control group, and when there were last more of them than before."""

    kills: int
    rose_at_s: float | None = None


class Kills:
    """The kills by the kernel in the control groups of the processes that it was told of."""

    def __init__(self, processes: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> None:
        self._processes, self._groups = processes, groups
        self._files: dict[int, Path] = {}
        self._counts: dict[Path, _Count] = {}

    def watch(self, pid: int) -> None:
        """Count for this process, too, from now on."""
        file = self._file(pid)
        kills = _kills(file) if file is not None else None
        if file is not None and kills is not None:
            self._files[pid] = file
            self._counts.setdefault(file, _Count(kills))

    def forget(self, pid: int) -> None:
        """Count no more for it."""
        file = self._files.pop(pid, None)
        if file is not None and file not in self._files.values():
            del self._counts[file]

    def look(self, at_s: float) -> None:
        """Count again, at `at_s` of the monotonic clock."""
        for file, count in self._counts.items():
            kills = _kills(file)
            if kills is not None and kills > count.kills:
                count.kills, count.rose_at_s = kills, at_s

    def near(self, pid: int, at_s: float) -> bool | None:
        """Whether there was a kill where this process lived, not long before `at_s`; None where none can be counted."""
        if pid not in self._files:
            return None
        rose_at_s = self._counts[self._files[pid]].rose_at_s
        return rose_at_s is not None and at_s - rose_at_s <= RECENT_S

    def _file(self, pid: int) -> Path | None:
        """The file that counts the kills of the process's group, or of the nearest one above that counts."""
        try:
            lines = (self._processes / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        for line in sorted(lines, reverse=True):  # version 1, where it has memory, before version 2, which is "0::"
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return _above(self._groups / "memory", path, "memory.oom_control")
            if number == "0":
                return _above(self._groups, path, "memory.events")
        return None


def _above(root: Path, path: str, name: str) -> Path | None:
    """The file of this name in the group `path`, or else in one above it: a container may see no more than its own."""
    folder = root / path.lstrip("/")
    for each in (folder, *folder.parents):
        if (each / name).is_file():
            return each / name
        if each == root:
            return None
    return None


def _kills(file: Path) -> int | None:
    try:
        counts = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
