"""A user's own script, run by the ranks of a segment: started, asked to save, watched, ended.
In: a JobSpec of `job: script`, a Place, a Watch and a Seat, on every rank. Out: an Outcome and published checkpoints.
The cluster's worker calls `run`; the script itself imports jobs/hook/lowtide.py, which stands on its own.
"""

from jobs.script.run import run
from jobs.script.seat import Seat

__all__ = ["Seat", "run"]
