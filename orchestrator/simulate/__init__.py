"""What planning is worth: policies run against recorded grids, by simulated time, with the planner of the product.
In: a Setting (recorded zones, slot, start costs), Tasks and policies' names. Out: Results with a row for each policy.
`lowtide simulate` shows them; nothing here reads a clock, a store or a network.
"""

from orchestrator.simulate.follow import Outcome, follow
from orchestrator.simulate.jobs import read_jobs
from orchestrator.simulate.profile import points_of, read_profile
from orchestrator.simulate.recorded import Recorded, read_recorded
from orchestrator.simulate.results import Results, Row, simulate
from orchestrator.simulate.setting import Setting, Task, tasks_each
from orchestrator.simulate.together import follow_fleet

__all__ = [
    "Outcome",
    "Recorded",
    "Results",
    "Row",
    "Setting",
    "Task",
    "follow",
    "follow_fleet",
    "points_of",
    "read_jobs",
    "read_profile",
    "read_recorded",
    "simulate",
    "tasks_each",
]
