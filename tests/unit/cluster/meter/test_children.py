"""What a worker starts is charged to its rank: a script's own process, in the phase in which it computed.
In: a host whose processes have children, as the test says. Out: rows in a real spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.meter import Owner
from tests.unit.cluster.meter.doubles import Bench, SetHost, SetProcess, of


@dataclass
class Parent(SetProcess):
    """A process that counts the children that it was told of."""

    children: list[SetProcess] = field(default_factory=list)

    def cpu_s(self) -> float | None:
        return self.spent_s + sum(child.spent_s for child in self.children)


@dataclass
class Family(SetHost):
    """A host whose process 7 has the child 8."""

    def children(self, pids: Iterable[int]) -> Mapping[int, Sequence[int]]:
        return {pid: [8] if pid == 7 and 8 in self.processes else [] for pid in pids}


def test_a_childs_time_belongs_to_the_phase_that_it_was_spent_in(tmp_path: Path) -> None:
    bench = Bench(tmp_path, host=Family())
    host, parent = bench.host, Parent(bench.clock.wall_s())
    parent.adopt = lambda pids: parent.children.extend(  # type: ignore[method-assign]
        host.processes[pid] for pid in pids if host.processes[pid] not in parent.children
    )
    host.processes[7] = parent
    bench.meter.register(Owner("job", "job-1", 0, 7, ()))
    bench.run_process(8)
    bench.pass_s(3, busy={8: 3})
    bench.meter.mark("job-1", 0, "train")
    bench.pass_s(5, busy={8: 4, 7: 1})
    bench.meter.mark("job-1", 0, "checkpoint")
    bench.pass_s(1, busy={8: 1})
    bench.meter.release("job-1", 0)
    rows = of(bench.spool.pull(), "cpu", 0)
    assert [(row.phase, row.energy_j) for row in rows] == [
        ("start", pytest.approx(30)),
        ("train", pytest.approx(50)),
        ("checkpoint", pytest.approx(10)),
    ]
