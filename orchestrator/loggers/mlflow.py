"""Runs in MLflow: one for each job, found again by its tag, in the experiment `lowtide` or the job's project.
In: a Run. Out: its metrics over steps and time, gone on with; what was logged stays.
`mlflow ui --backend-store-uri URI` shows them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from jobs.spec import Unavailable
from orchestrator.loggers.series import Run

TAG = "lowtide.job"
EXPERIMENT = "lowtide"
AT_ONCE = 1000
"""Metrics that MLflow takes in one batch."""
STATUS = {"done": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def open_at(place: str, folder: Path) -> Mlflow:
    """A tracking server or database, as `mlflow --backend-store-uri` takes it."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return Mlflow(place)


class Mlflow:
    """One tracking store."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None
        self._until_ms: dict[str, int] = {}
        """The newest point of each run, as far as this process has asked or written."""

    def write(self, run: Run) -> None:
        """Log the points that are later than the last one there, and the report's figures where they have changed."""
        try:
            if self._client is None:
                self._client = MlflowClient(tracking_uri=self._uri)
            known = self._find(run)
            run_id = known.info.run_id
            if run_id not in self._until_ms:
                history = self._client.get_metric_history(run_id, "energy_j")
                self._until_ms[run_id] = max((metric.timestamp for metric in history), default=-1)
            until_ms = self._until_ms[run_id]
            fresh = [metric for metric in _metrics(run) if metric.timestamp > until_ms]
            fresh += [metric for metric in _figures(run) if known.data.metrics.get(metric.key) != metric.value]
            for first in range(0, len(fresh), AT_ONCE):
                self._client.log_batch(run_id, metrics=fresh[first : first + AT_ONCE])
            self._until_ms[run_id] = max([until_ms, *(metric.timestamp for metric in fresh)])
            if run.has_ended and known.info.status != STATUS[run.state]:
                end_ms = _ms(run.points[-1].at.timestamp()) if run.points else None
                self._client.set_terminated(run_id, STATUS[run.state], end_ms)
        except MlflowException as fault:
            raise Unavailable(
                f"mlflow: {self._uri}: {str(fault).splitlines()[0][:300]}; give a server or a database as "
                "mlflow's --backend-store-uri takes it"
            ) from None

    def close(self) -> None:
        """Nothing is held."""

    def _find(self, run: Run) -> Any:
        """The job's run, made where there is none."""
        name = run.project or EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        found = self._client.search_runs([experiment_id], f"tags.`{TAG}` = '{run.job_id}'", max_results=1)
        if found:
            return found[0]
        start_ms = _ms(run.points[0].at.timestamp()) if run.points else None
        made = self._client.create_run(experiment_id, start_time=start_ms, run_name=run.name)
        about = [Param(name, value) for name, value in run.about.items()]
        self._client.log_batch(made.info.run_id, params=about, tags=[RunTag(TAG, run.job_id)])
        return made


def _metrics(run: Run) -> Iterator[Metric]:
    for point in run.points:
        for name, value in point.values().items():
            yield Metric(name, value, _ms(point.at.timestamp()), point.step)


def _figures(run: Run) -> Iterator[Metric]:
    if run.points:
        last = run.points[-1]
        for name, value in run.figures.items():
            yield Metric(f"report/{name}", value, _ms(last.at.timestamp()), last.step)


def _ms(at_s: float) -> int:
    return round(at_s * 1000)
