"""WHEN, WHERE and HOW WIDE many jobs run that share GPUs: pure decisions on values, with a proven bound.
In: a Fleet. Out: a FleetPlan: a Plan for each job, total grams, the bound and who misses a deadline.
The controller acts on each job's Plan as on one that was made for the job alone.
"""

from orchestrator.fleet.problem import Capacity, Fleet, FleetJob, FleetZone, Pool
from orchestrator.fleet.replan import plan_fleet, replan
from orchestrator.fleet.reserve import reserved
from orchestrator.fleet.rules import ruled
from orchestrator.fleet.state import FleetPlan

__all__ = [
    "Capacity",
    "Fleet",
    "FleetJob",
    "FleetPlan",
    "FleetZone",
    "Pool",
    "plan_fleet",
    "replan",
    "reserved",
    "ruled",
]
