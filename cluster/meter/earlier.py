"""What earlier boots of a host left in its spool folder: a host that died and came back has rows nobody has taken.
In: the folder, the boot that lives. Out: their rows; what of them is acknowledged is kept in mind.
The meter of the new boot hands them to the controller with its own; a spool whose meter lives is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.api import MeterRow
from cluster.meter.spool import Key, Spool
from jobs.spec import Unavailable


def pull(folder: Path, boot: str) -> list[MeterRow]:
    """Rows of other boots than `boot` that were not acknowledged, oldest first."""
    rows: list[MeterRow] = []
    for other in _others(folder, boot):
        with _opened(folder, other) as spool:
            rows += spool.pull() if spool is not None else []
    return sorted(rows, key=lambda row: (row.start, row.host_boot, row.device, row.seq))


def acknowledge(folder: Path, boot: str, keys: Mapping[str, Sequence[Key]]) -> None:
    """These rows, by boot, are committed; boots whose spool is not here, or whose meter lives, are passed over."""
    for other in _others(folder, boot):
        if other in keys:
            with _opened(folder, other) as spool:
                if spool is not None:
                    spool.acknowledge(keys[other])


def _others(folder: Path, boot: str) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.jsonl") if path.stem != boot)


@contextmanager
def _opened(folder: Path, boot: str) -> Iterator[Spool | None]:
    """The spool of a boot whose meter is gone; None where one lives (hosts may share the folder) or it is damaged."""
    try:
        spool = Spool(folder, boot)
    except Unavailable:
        yield None
        return
    try:
        yield spool
    finally:
        spool.close()
