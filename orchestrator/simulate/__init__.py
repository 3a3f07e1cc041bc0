"""What planning is worth: policies run against recorded grids, by simulated time, with the planner of the product.
In: a Setting (recorded zones, slot, start costs), Tasks and policies' names. Out: Results with a row for each policy.
`lowtide simulate` shows them; nothing here reads a clock, a store or a network.
"""

from orchestrator.simulate.follow import Outcome, follow
from orchestrator.simulate.profile import points_of, read_profile
from orchestrator.simulate.recorded import Recorded, read_recorded
from orchestrator.simulate.results import Results, Row, simulate
from orchestrator.simulate.setting import Setting, Task, tasks_each

__all__ = [
    "Outcome",
    "Recorded",
    "Results",
    "Row",
    "Setting",
    "Task",
    "follow",
    "points_of",
    "read_profile",
    "read_recorded",
    "simulate",
    "tasks_each",
]
