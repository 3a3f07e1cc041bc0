"""The file on each host where its meter writes rows until the controller has taken them.
In: batches of rows with the meter's own state. Out: rows not yet acknowledged, numbered by device.
The controller pulls, commits, then acknowledges; the key (host boot, device, seq) makes a second pull harmless.

Files in the spool folder, by boot id:
    <boot>.jsonl        one line per batch: {"rows": [...], "state": {...}}. A line is written whole or not at all, so
                        rows and the readings that the meter goes on from are always of the same moment.
    <boot>.taken.json   what was acknowledged, by device: {"through": n, "also": [m, ...]}; replaced atomically
    <boot>.torn         what a crash left of a last line, kept for inspection; its rows were never visible
    <boot>.lock         locked while a meter lives: two meters never write one file
    <boot>.limits.json  power limits in W that GPUs had before segments changed them, by UUID; gone where all have them
    <boot>.guard        locked while a guard waits to give them back, should the meter never come again
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cluster.api import MeterRow
from jobs.spec import Unavailable

log = logging.getLogger(__name__)

Key = tuple[str, int]
"""A row's device and seq; the host boot is the file's."""

COMPACT_BYTES = 256 * 1024
"""Above this size a file is rewritten without the rows that were taken."""


class Spool:
    """One host's spool file, open for writing by this process alone. Unavailable where another holds it."""

    def __init__(self, folder: Path, host_boot: str, wait_s: float = 0.0) -> None:
        self.host_boot = host_boot
        self._file = folder / f"{host_boot}.jsonl"
        self._taken_file = folder / f"{host_boot}.taken.json"
        self.limits = folder / f"{host_boot}.limits.json"
        """Where the meter keeps the power limits that it found."""
        self._guard = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _lock(folder / f"{host_boot}.lock", wait_s)
        self.state: Mapping[str, Any] | None = None
        """What the meter kept with the last batch; None in a new spool."""
        try:
            self._take_up()
        except BaseException:
            self.close()
            raise
        # A spool that was lost with a container must not number its rows again from 1 in the same boot, or the
        # controller would take them for known ones. Milliseconds are ahead of any count of rows.
        self._first_seq = int(time.time() * 1000)

    def _take_up(self) -> None:
        """Go on from what the files hold."""
        self._mend()
        self._taken = self._read_taken()
        self._last_seq = {device: mark.last() for device, mark in self._taken.items()}
        for batch in self._batches():
            self.state = batch["state"]
            for row in batch["rows"]:
                device, seq = row["device"], row["seq"]
                self._last_seq[device] = max(self._last_seq.get(device, 0), seq)

    def append(self, rows: Sequence[MeterRow], state: Mapping[str, Any]) -> list[MeterRow]:
        """Write rows and state as one line, on disk when this returns; gives them numbered. OSError if not."""
        with self._guard:
            last_seq = dict(self._last_seq)
            numbered = []
            for row in rows:
                last_seq[row.device] = last_seq.get(row.device, self._first_seq) + 1
                numbered.append(dataclasses.replace(row, host_boot=self.host_boot, seq=last_seq[row.device]))
            line = json.dumps({"rows": [_to_json(row) for row in numbered], "state": state}) + "\n"
            self._write(line.encode())
            self._last_seq, self.state = last_seq, state
            return numbered

    def pull(self) -> list[MeterRow]:
        """Rows not yet acknowledged, oldest first."""
        with self._guard:
            return sorted(self._untaken(), key=lambda row: (row.start, row.device, row.seq))

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """Keep in mind that these rows are committed; the rest stays. On disk when this returns."""
        with self._guard:
            held: dict[str, list[int]] = {}
            for device, seq in sorted((row.device, row.seq) for row in self._untaken()):
                held.setdefault(device, []).append(seq)
            for device, seq in keys:
                if seq in held.get(device, ()):
                    self._taken.setdefault(device, _Taken()).also.add(seq)
            for device, mark in self._taken.items():
                mark.advance(held.get(device, ()))
            replace(self._taken_file, json.dumps({device: mark.to_json() for device, mark in self._taken.items()}))
            if self._file.exists() and self._file.stat().st_size > COMPACT_BYTES:
                self._compact()

    def close(self) -> None:
        """Let another meter have the file."""
        with self._guard:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def _write(self, line: bytes) -> None:
        """Append a whole line or nothing: what a full disk cut short is taken back."""
        with open(self._file, "ab", buffering=0) as file:
            size = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(f"{self._file}: wrote {written} of {len(line)} bytes")
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise

    def _mend(self) -> None:
        """Move a torn last line (killed in the middle of a write) out of the file."""
        content = self._file.read_bytes() if self._file.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log.warning("%s: its last line was torn by a crash; it is kept in %s.torn", self._file, self.host_boot)
            with open(self._file.with_suffix(".torn"), "ab") as torn:
                torn.write(content[whole:] + b"\n")
                os.fsync(torn.fileno())
            os.truncate(self._file, whole)

    def _batches(self) -> Iterator[dict[str, Any]]:
        if self._file.exists():
            with open(self._file, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield json.loads(line)
                    except ValueError:
                        raise Unavailable(f"{self._file}: line {number} is damaged; move the file away") from None

    def _untaken(self) -> Iterator[MeterRow]:
        for batch in self._batches():
            for row in batch["rows"]:
                mark = self._taken.get(row["device"])
                if mark is None or not mark.has(row["seq"]):
                    yield _from_json(row)

    def _read_taken(self) -> dict[str, _Taken]:
        if not self._taken_file.exists():
            return {}
        marks = json.loads(self._taken_file.read_text(encoding="utf-8"))
        return {device: _Taken(mark["through"], set(mark["also"])) for device, mark in marks.items()}

    def _compact(self) -> None:
        """Rewrite the file with the rows that nobody took; killed at any moment it is the old file or the new."""
        rest = [_to_json(row) for row in self._untaken()]
        replace(self._file, json.dumps({"rows": rest, "state": self.state}) + "\n")


@dataclasses.dataclass
class _Taken:
    """Acknowledged numbers of one device: all `through` a number, and single ones after it."""

    through: int = 0
    also: set[int] = dataclasses.field(default_factory=set)

    def has(self, seq: int) -> bool:
        return seq <= self.through or seq in self.also

    def last(self) -> int:
        return max(self.through, *self.also) if self.also else self.through

    def advance(self, held: Sequence[int]) -> None:
        """Move `through` up to before the first of `held` (ascending) that is not acknowledged."""
        open_ = [seq for seq in held if seq not in self.also]
        upto = [seq for seq in self.also if not open_ or seq < open_[0]]
        self.through = max([self.through, *upto])
        self.also -= set(upto)

    def to_json(self) -> dict[str, Any]:
        return {"through": self.through, "also": sorted(self.also)}


def _lock(path: Path, wait_s: float) -> int:
    """A file descriptor that holds the lock, until it is closed or the process ends."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    until_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= until_s:
                os.close(fd)
                raise Unavailable(f"{path}: another meter writes this spool; end it or name another spool") from None
            time.sleep(0.05)


def replace(path: Path, text: str) -> None:
    """Replace a file's content atomically and durably."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _to_json(row: MeterRow) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "start": row.start.isoformat(), "end": row.end.isoformat()}


def _from_json(row: Mapping[str, Any]) -> MeterRow:
    start, end = (datetime.fromisoformat(row[edge]).astimezone(timezone.utc) for edge in ("start", "end"))
    return MeterRow(**{**row, "start": start, "end": end})
