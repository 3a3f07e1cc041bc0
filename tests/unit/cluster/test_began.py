"""When a process began, to the hundredth: the kernel tells the boot's time in whole seconds.
In: a process of its own. Out: nothing.
The parts of a segment's start are differences of such times.
"""

from __future__ import annotations

import subprocess
import sys
import time

TICK_S = 0.02


def test_a_process_began_after_it_was_ordered_and_before_it_answered() -> None:
    ordered_at_s = time.time()
    command = [sys.executable, "-c", "from cluster.began import began_at_s; print(began_at_s())"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert ordered_at_s - TICK_S <= float(told) <= time.time()
