"""Two rounds of the fault campaign; `make faults` runs fifty.
In: the campaign as its command runs it. Out: nothing.
A worker is killed, and a node is preempted: weights, ledger and counters must come through it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import draws
from tests.faults.kinds import KINDS
from tests.nvml import build

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = ("worker killed", "node drained")


@pytest.mark.timeout(1800)  # where others use the machine, too
def test_jobs_come_through_two_rounds_of_faults_with_nothing_lost() -> None:
    if build.compiler() is None:
        pytest.skip("no C compiler for the NVML stand-in")
    command = [sys.executable, "-m", "tests.faults", "--rounds", str(len(ROUNDS)), "--seed", "1"]
    command += [part for name in ROUNDS for part in ("--only", name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    assert [found[1] for found in re.finditer(r"^round +\d+ +\d+ s  ([^:]+):", done.stdout, re.MULTILINE)] == [*ROUNDS]


def test_a_seed_draws_the_same_rounds_and_fifty_draw_every_kind() -> None:
    assert draws(50, 1, None) == draws(50, 1, None) != draws(50, 2, None)
    assert set(draws(50, 1, None)) == set(KINDS)
    assert draws(3, 1, ["worker killed", "meter killed"]) == ["worker killed", "meter killed", "worker killed"]
