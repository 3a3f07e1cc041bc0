"""Watts, joules and grams beside the loss, in the tools that people watch their training with.
In: a Report. Out: runs in TensorBoard, Weights & Biases or MLflow, brought up to date.
`lowtide report --to` writes one job; controllers follow those that run, where the site file asks for it.
"""

from orchestrator.loggers.follow import Follower, followed
from orchestrator.loggers.series import Run, run_of
from orchestrator.loggers.target import KINDS, Logger, open_logger

__all__ = ["KINDS", "Follower", "Logger", "Run", "followed", "open_logger", "run_of"]
