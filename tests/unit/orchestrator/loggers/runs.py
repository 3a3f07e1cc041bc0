"""Runs for the tests of loggers: of the demo's account, half-way and at its end, and with a later revision.
In: nothing. Out: Runs.
Each logger's test writes them with the real library and reads them back.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.accounting.account import Account, LossAt
from orchestrator.loggers import Run, run_of
from orchestrator.report import report_of
from tests.unit.orchestrator.report.accounts import T0, demo

EVERY_S = 5.0


def account() -> Account:
    """The demo with a loss each ten seconds of its segments."""
    seconds = [*range(15, 34, 10), *range(132, 205, 10)]
    losses = [LossAt(T0 + timedelta(seconds=s), 3 * n, 4.0 - n / 10) for n, s in enumerate(seconds, 1)]
    return replace(demo(), losses=losses, batch_size=64, project="nlp", user="ada")


def ended() -> Run:
    return run_of(report_of(account()), EVERY_S)


def running(at_s: float = 200) -> Run:
    """As it was known `at_s` seconds after the job was submitted."""
    at = T0 + timedelta(seconds=at_s)
    whole = account()
    segments = [replace(s, ended_at=None, ended=None) if s.ended_at > at else s for s in whole.segments]  # type: ignore[operator]
    return run_of(report_of(replace(whole, state="running", at=at, segments=segments)), EVERY_S)


def revised() -> Run:
    """The end, once the grid's intensities were measured anew."""
    whole = account()
    doubled = [replace(said, g_per_kwh=2 * (said.g_per_kwh or 0.0)) for said in whole.intensities]
    return run_of(report_of(replace(whole, intensities=doubled)), EVERY_S)
