"""An audit of samples: what every worker took at every step, so that anyone can count that each comes once an epoch.
In: the micro-batches of jobs.data, where the job's env says LOWTIDE_AUDIT=1. Out: a line for each of them on disk.
`taken` reads the lines of all segments back; the tests count with it.

    <checkpoints>/audit/<segment>-rank-00000.jsonl   {"began_at": 1767225600}, then {"step": 0, "samples": [17, 4]} ...
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.data import Micro
from jobs.place import Place

VARIABLE = "LOWTIDE_AUDIT"

Feed = Callable[[int], Iterator[Micro]]


def audited(batches: Feed, place: Place) -> Feed:
    """The same micro-batches, written down as they are taken; `batches` itself unless the job's env asks for it."""
    if os.environ.get(VARIABLE, "0") == "0":
        return batches
    folder = place.checkpoints / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{place.segment_id}-rank-{place.rank:05d}.jsonl"
    path.write_text(json.dumps({"began_at": time.time()}) + "\n", encoding="utf-8")

    def noted(step: int) -> Iterator[Micro]:
        for micro in batches(step):
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": step, "samples": micro.samples.tolist()}) + "\n")
            yield micro

    return noted


def taken(folder: Path) -> dict[int, list[int]]:
    """Samples by step, in the order of the global batch, from the `audit` folder of a job's checkpoints.

    A step that was taken again, for a crash lost it before it was saved, counts as the last segment took it.
    """
    segments: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*-rank-?????.jsonl")):
        segments.setdefault(path.name.rsplit("-rank-", 1)[0], []).append(path)
    read = [[path.read_text(encoding="utf-8").splitlines() for path in paths] for paths in segments.values()]
    steps: dict[int, list[int]] = {}
    for ranks in sorted(read, key=lambda ranks: float(json.loads(ranks[0][0])["began_at"])):
        own: dict[int, list[int]] = {}
        for line in (json.loads(line) for lines in ranks for line in lines[1:]):
            own.setdefault(line["step"], []).extend(line["samples"])
        steps |= own
    return dict(sorted(steps.items()))
