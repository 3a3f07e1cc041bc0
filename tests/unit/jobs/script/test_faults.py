"""What a script's worker raises crosses to the segment's driver with all that it says."""

from __future__ import annotations

import pickle

import pytest

from jobs.script.board import PeerFailed
from jobs.script.run import NoRoom, ScriptFault
from jobs.spec import LowtideError


@pytest.mark.parametrize("kind", [ScriptFault, NoRoom])
def test_faults_survive_the_way_to_another_process(kind: type[ScriptFault | NoRoom]) -> None:
    fault = kind("script: 'train.py' failed on rank 1: exit code 1: ValueError: a")
    fault.output = "Traceback\nValueError: a"
    told = pickle.loads(pickle.dumps(fault))
    assert isinstance(told, LowtideError) and type(told) is kind
    assert (str(told), told.output) == (str(fault), fault.output)
    assert str(pickle.loads(pickle.dumps(PeerFailed()))) == str(PeerFailed())
