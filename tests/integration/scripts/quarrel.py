"""A script that goes wrong as it is told to: by an exception on rank 1, by asking at different steps, or by sleeping.
In: what to do. Out: an exit code.
test_script.py looks at what the worker makes of it.
"""

from __future__ import annotations

import os
import sys
import time

RANK = int(os.environ["RANK"])

if sys.argv[1] == "raise":
    if RANK == 1:
        print("about to fail", file=sys.stderr)
        raise ValueError("the data is empty")
    time.sleep(120)
elif sys.argv[1] == "differ":
    import lowtide

    lowtide.due(1 + RANK)
elif sys.argv[1] == "sleep":
    time.sleep(120)
elif sys.argv[1] == "blind":
    print(f"rank {RANK} of {os.environ['WORLD_SIZE']} at {os.environ['MASTER_ADDR']}")
