"""What the campaign left: every row that a meter wrote is in the ledger once, and the joules are the counters' own.
In: the Ground and the curves of its GPUs. Out: lines that say what is lost, doubled or wrong; none where all is well.
`Spooled` reads the spool beside the product while the faults strike, so that it knows of every row by itself.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from jobs.spec import utc
from orchestrator.store.schema import LedgerRow
from tests.faults.ground import SHAPES, WORKERS, Ground
from tests.nvml.curves import energy_j

Key = tuple[str, str, int]

TAKEN_WITHIN_S = 180.0
"""A host that was not heard since the last segment's end is asked again after 65 s, and then after as long again."""
READ_EVERY_S = 0.1
EDGE_S = 0.2
"""How far the reading of a counter and the moment that it is booked for may lie apart on a loaded machine."""


class Spooled:
    """Follows every spool file of the site; knows each row that was ever in one."""

    def __init__(self, ground: Ground) -> None:
        self._folder = ground.site.state / "spool"
        self.rows: dict[Key, dict[str, Any]] = {}
        self.changed: list[Key] = []
        self._sizes: dict[str, tuple[int, int]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="spooled", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop following."""
        self._ending.set()
        self._thread.join()

    def read(self) -> None:
        """Take in what the files hold now."""
        for path in self._folder.glob("*.jsonl"):
            try:
                now = path.stat()
                if self._sizes.get(path.name) == (now.st_size, now.st_mtime_ns):
                    continue
                text = path.read_text()
            except OSError:
                continue
            self._sizes[path.name] = (now.st_size, now.st_mtime_ns)
            for line in text[: text.rfind("\n") + 1].splitlines():
                for row in json.loads(line)["rows"]:
                    key = (row["host_boot"], row["device"], row["seq"])
                    if self.rows.setdefault(key, row) != row:
                        self.changed.append(key)

    def _follow(self) -> None:
        while not self._ending.wait(READ_EVERY_S):
            self.read()


def audit(ground: Ground, spooled: Spooled) -> list[str]:
    """Compare ledger, spool and counters once every row has been taken."""
    spooled.read()
    deadline_s = time.monotonic() + TAKEN_WITHIN_S
    while (lost := _due(ground, spooled) - {_key(row) for row in ledger(ground)}) and time.monotonic() < deadline_s:
        time.sleep(0.5)
    rows = ledger(ground)
    found = [f"row {key} was in the spool and is not in the ledger" for key in sorted(lost)[:3]]
    found += [f"row {key} was written twice with another content" for key in spooled.changed[:3]]
    keys = [_key(row) for row in rows]
    if len(keys) != len(set(keys)):
        found.append("a key is in the ledger twice")
    for row in rows:
        said = spooled.rows.get(_key(row))
        if said is not None and (said["energy_j"], said["segment_id"]) != (row.energy_j, row.segment_id):
            found.append(f"row {_key(row)}: the ledger has {row.energy_j} J, the meter wrote {said['energy_j']} J")
    for index, shape in enumerate(SHAPES):
        found += _against_the_counter(index, shape, rows)
    return found + [text for job_id in ground.jobs for text in _unmetered(ground, job_id, rows)]


def _due(ground: Ground, spooled: Spooled) -> set[Key]:
    """Rows that the ledger must have by now."""
    segments = [segment for job_id in ground.jobs for segment in ground.site.segments(job_id)]
    return due(spooled.rows, {each.id: each.ended_at for each in segments if each.ended_at is not None})


def due(rows: Mapping[Key, Mapping[str, Any]], ended_at: Mapping[str, datetime]) -> set[Key]:
    """All rows of jobs, and of the idle account those up to the last segment's end, or each host's first word since.

    From its first word since its own last segment ended a host owes nothing: what it idles then is taken when something
    runs again, for a pass does not attach to Ray for that.
    """
    if not ended_at:
        return set(rows)
    last, own = max(ended_at.values()), dict[str, datetime]()
    for (host, _, _), row in rows.items():
        if (end := ended_at.get(row.get("segment_id") or "")) is not None:
            own[host] = max(own.get(host, end), end)
    words = dict[str, tuple[datetime, Key]]()
    for key, row in rows.items():
        if key[0] in own and utc(row["end"]) > own[key[0]]:
            words[key[0]] = min(words.get(key[0], (utc(row["end"]), key)), (utc(row["end"]), key))
    first = {key for _, key in words.values()}

    def is_due(key: Key, row: Mapping[str, Any]) -> bool:
        end = utc(row["end"])
        return (
            row.get("job_id") is not None or end <= last or key in first or (key[0] in words and end < words[key[0]][0])
        )

    return {key for key, row in rows.items() if is_due(key, row)}


def ledger(ground: Ground) -> list[LedgerRow]:
    """Every row of the ledger, by time."""
    with ground.site.store.read() as session:
        return list(session.query(LedgerRow).order_by(LedgerRow.start, LedgerRow.seq))


def _key(row: LedgerRow) -> Key:
    return row.host_boot, row.device, row.seq


def _unmetered(ground: Ground, job_id: str, rows: list[LedgerRow]) -> list[str]:
    """Ranks of segments that trained and were charged for nothing."""
    charged = {(row.segment_id, row.rank, row.uuid is not None) for row in rows}
    trained = [segment.id for segment in ground.site.segments(job_id) if segment.trained_steps > 0]
    wanted = [(name, rank, True) for name in trained for rank in range(WORKERS)] + [
        (name, -1, False) for name in trained
    ]
    return [
        f"{name}: rank {rank} was charged for nothing" for name, rank, on in wanted if (name, rank, on) not in charged
    ]


def _against_the_counter(index: int, shape: str, rows: list[LedgerRow]) -> list[str]:
    """A GPU's rows, whoever they are charged to, tile its time; their sum is what its counter counted."""
    uuid = f"GPU-00000000-0000-0000-0000-{index:012d}"
    own = [row for row in rows if row.uuid == uuid and row.energy_j is not None]
    if not own:
        return [f"GPU {index} was never metered"]
    found = []
    for before, after in pairwise(own):
        apart_s = (after.start - before.end).total_seconds()
        if abs(apart_s) > EDGE_S:
            found.append(f"GPU {index}: {apart_s:.3f} s between rows at {before.end} and {after.start}")
    start_s, end_s = own[0].start.timestamp(), max(row.end for row in own).timestamp()
    counted_j, booked_j = energy_j(shape, start_s, end_s), math.fsum(row.energy_j or 0.0 for row in own)
    most_w = 400.0
    if abs(counted_j - booked_j) > 2 * EDGE_S * most_w:
        found.append(f"GPU {index}: its counter moved by {counted_j:.1f} J, the ledger has {booked_j:.1f} J")
    return found[:4]
