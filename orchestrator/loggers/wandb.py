"""Runs in Weights & Biases: one for each job, under the job's id, online or offline as WANDB_MODE says.
In: a Run. Out: its history, gone on with; what was sent stays, for the service takes no corrections.
`wandb sync` sends what was written offline; there each process writes a folder of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import wandb

from jobs.spec import Unavailable
from orchestrator.loggers.series import Run


def open_at(place: str, folder: Path) -> Wandb:
    """A project; what the library keeps on this machine goes to WANDB_DIR, else into `folder`."""
    return Wandb(place, Path(os.environ.get("WANDB_DIR", folder)))


class Wandb:
    """One project; the runs of jobs that go on are kept open."""

    def __init__(self, project: str, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._runs: dict[str, Any] = {}
        self._until_s: dict[str, float] = {}
        self._told: dict[str, dict[str, float]] = {}

    def write(self, run: Run) -> None:
        """Log the points that are later than the last one there; the report's figures go into the summary."""
        if run.has_ended and self._told.get(run.job_id) == run.figures:
            return
        try:
            if run.job_id not in self._runs:
                self._open(run)
            self._log(self._runs[run.job_id], run)
            if run.has_ended:
                self._runs.pop(run.job_id).finish(exit_code=0 if run.state == "done" else 1)
                self._told[run.job_id] = dict(run.figures)
        except (wandb.Error, OSError) as fault:
            self._runs.pop(run.job_id, None)
            reason = str(fault).splitlines()[0].rstrip(".")
            raise Unavailable(f"wandb: {reason}; run `wandb login`, set WANDB_API_KEY, or WANDB_MODE=offline") from None

    def close(self) -> None:
        """Leave the runs as they are: those of jobs that go on are taken up again by their ids."""
        for run in self._runs.values():
            run.finish()
        self._runs.clear()

    def _open(self, run: Run) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        opened = wandb.init(
            project=self._project,
            id=run.job_id,
            name=run.name,
            dir=str(self._folder),
            config=dict(run.about),
            resume="allow",
            reinit="create_new",
            # Of this process, which is not the one that trains, nothing is to be recorded.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
            ),
        )
        opened.define_metric("step", hidden=True)
        opened.define_metric("*", step_metric="step")
        self._runs[run.job_id] = opened
        if opened.resumed:  # what another process has sent
            self._until_s[run.job_id] = float(opened.summary.get("_timestamp") or 0.0)

    def _log(self, opened: Any, run: Run) -> None:
        until_s = self._until_s.get(run.job_id, 0.0)
        for point in run.points:
            at_s = point.at.timestamp()
            if at_s > until_s:
                opened.log({**point.values(), "step": point.step, "_timestamp": at_s})
                self._until_s[run.job_id] = at_s
        if run.figures:
            opened.summary.update({f"report/{name}": value for name, value in run.figures.items()})
