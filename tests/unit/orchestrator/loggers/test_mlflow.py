"""MLflow's own client finds what was written to a real tracking database: once, in the job's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.spec import Unavailable
from orchestrator.loggers import open_logger
from orchestrator.loggers.series import Run
from tests.unit.orchestrator.loggers.runs import ended, revised, running

pytestmark = pytest.mark.filterwarnings("ignore")
"""Of the library's own imports."""
mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
pytest.importorskip("alembic", reason="the extra mlflow is not installed")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def write(uri: str, *runs: Run) -> None:
    for run in runs:
        logger = open_logger(f"mlflow:{uri}", Path())
        logger.write(run)
        logger.close()


def read(uri: str, run: Run) -> Any:
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("nlp")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.tags["lowtide.job"] == run.job_id
    history = {name: client.get_metric_history(found.info.run_id, name) for name in found.data.metrics}
    return found, {
        name: sorted((metric.timestamp, metric.step, metric.value) for metric in metrics)
        for name, metrics in history.items()
    }


def test_every_series_is_there_beside_the_loss_and_nothing_twice(uri: str) -> None:
    write(uri, running(170), running(170), ended(), ended())
    found, series = read(uri, ended())
    for name in ("loss", "power_w", "energy_j", "emissions_g", "g_per_kwh"):
        points = [point for point in ended().points if name in point.values()]
        told = [(round(1000 * point.at.timestamp()), point.step, point.values()[name]) for point in points]
        assert series[name] == told
    assert found.data.metrics["report/saved_g"] == pytest.approx(ended().figures["saved_g"])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "tinystories-distill")
    assert found.data.params["user"] == "ada"


def test_one_process_that_follows_a_run_writes_what_many_do(uri: str) -> None:
    logger = open_logger(f"mlflow:{uri}", Path())
    for run in (running(170), running(170), running(250), ended(), ended()):
        logger.write(run)
    logger.close()
    _, series = read(uri, ended())
    assert [value for _, _, value in series["energy_j"]] == [point.energy_j for point in ended().points]


def test_a_run_that_goes_on_is_not_finished(uri: str) -> None:
    write(uri, running(200))
    found, series = read(uri, running(200))
    assert found.info.status == "RUNNING"
    assert not any(name.startswith("report/") for name in series)


def test_a_revision_shows_in_the_report_s_figures(uri: str) -> None:
    write(uri, ended(), revised())
    found, series = read(uri, revised())
    assert found.data.metrics["report/emissions_g"] == pytest.approx(2 * ended().figures["emissions_g"])
    assert len(series["energy_j"]) == len(ended().points), "what was logged of the time stays"


def test_a_place_that_is_none_is_unavailable_and_says_what_to_give() -> None:
    with pytest.raises(Unavailable, match="mlflow: nothing://there: .*backend-store-uri"):
        write("nothing://there", ended())
