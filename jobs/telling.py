"""The line of a traceback or of stderr that says why: the exception's own, not the hints that its text ends with.
In: what a process wrote, or a formatted traceback. Out: one line of it.
jobs.script.child reads a script's stderr, cluster.failure a worker's traceback, cluster.ray_cluster a driver's log.
"""

from __future__ import annotations

import re

_HEAD = re.compile(r"Traceback \(most recent call last\):$")
_RANK = re.compile(r"^\[rank\d+\]: ?")
"""What torchrun puts before every line."""
_NAMED = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Fault|Exit)\b")


def telling(text: str) -> str:
    """The last exception's line, preferably one that says more than its name; else the last line; empty of nothing."""
    lines = [line for line in (_RANK.sub("", line.rstrip()) for line in text.splitlines()) if line.strip()]
    found, in_frames = list[str](), False
    for line in lines:
        if _HEAD.search(line):
            in_frames = True
        elif in_frames and line[0].isspace():
            continue
        elif in_frames or _NAMED.match(line.strip()):
            found.append(line.strip())
            in_frames = False
    saying = [line for line in found if not line.endswith(":")]
    return next((each[-1].strip() for each in (saying, found, lines) if each), "")
