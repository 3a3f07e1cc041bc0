"""How long `lowtide --help` takes, beside a Python that does nothing.
In: the installed command. Out: the medians of ten starts each, interleaved.
`tests.bench.__main__` prints it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figure import Figure, Options, Section

TIMES = 10
GOAL_S = 0.4


def measure(options: Options) -> Section:
    """Start each TIMES times, after one start that warms the file cache."""
    commands = {
        "lowtide --help": [str(Path(sys.executable).with_name("lowtide")), "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    took_s: dict[str, list[float]] = {name: [] for name in commands}
    for time_ in range(TIMES + 1):
        for name, command in commands.items():
            duration_s = _start_s(command)
            if time_ > 0:
                took_s[name].append(duration_s)
    figures = [
        Figure(
            name,
            statistics.median(each),
            "s",
            at_most=GOAL_S if name.startswith("lowtide") else None,
            note=f"{min(each):.3f} to {max(each):.3f} s",
        )
        for name, each in took_s.items()
    ]
    return Section("startup", figures)


def _start_s(command: Sequence[str]) -> float:
    started_s = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s
