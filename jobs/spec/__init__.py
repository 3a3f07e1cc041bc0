"""What a job is: the YAML contract, its units, and the errors that name field and fix.
In: YAML written by users. Out: a frozen JobSpec.
The orchestrator plans it; the cluster carries it; the jobs wing runs it.
"""

from jobs.spec.document import Section, parse, read_mapping
from jobs.spec.errors import Fenced, InputError, JobFault, LowtideError, Refused, StaleEpoch, Unavailable
from jobs.spec.job import Carbon, JobSpec, Model, Policy, Workers
from jobs.spec.resolve import read_spec, resolve
from jobs.spec.units import DurationS, MassG, Moment, Utc, WorkerRange, iso, seconds, utc

__all__ = [
    "Carbon",
    "DurationS",
    "Fenced",
    "InputError",
    "JobFault",
    "JobSpec",
    "LowtideError",
    "MassG",
    "Model",
    "Moment",
    "Policy",
    "Refused",
    "Section",
    "StaleEpoch",
    "Unavailable",
    "Utc",
    "WorkerRange",
    "Workers",
    "iso",
    "parse",
    "read_mapping",
    "read_spec",
    "resolve",
    "seconds",
    "utc",
]
