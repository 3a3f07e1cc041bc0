"""What a script's worker raises crosses to the segment's driver with all that it says."""

from __future__ import annotations

import pickle

from jobs.script.board import PeerFailed
from jobs.script.run import ScriptFault
from jobs.spec import JobFault


def test_faults_survive_the_way_to_another_process() -> None:
    fault = ScriptFault("script: 'train.py' failed on rank 1: exit code 1: ValueError: a")
    fault.output = "Traceback\nValueError: a"
    told = pickle.loads(pickle.dumps(fault))
    assert isinstance(told, JobFault) and (str(told), told.output) == (str(fault), fault.output)
    assert str(pickle.loads(pickle.dumps(PeerFailed()))) == str(PeerFailed())
