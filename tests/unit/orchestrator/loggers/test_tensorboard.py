"""TensorBoard's own reader finds what was written: once, whole, and anew where figures were revised."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.spec import Unavailable
from orchestrator.loggers import open_logger
from orchestrator.loggers.series import Run
from tests.unit.orchestrator.loggers.runs import ended, revised, running

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
)


def write(folder: Path, *runs: Run) -> None:
    """With a logger of its own for each, as processes that come and go have."""
    for run in runs:
        logger = open_logger(f"tensorboard:{folder}", folder)
        logger.write(run)
        logger.close()


def read(folder: Path, run: Run) -> dict[str, list[tuple[float, int, float]]]:
    found = accumulator.EventAccumulator(str(folder / run.job_id), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: sorted((event.wall_time, event.step, event.value) for event in found.Scalars(tag))
        for tag in found.Tags()["scalars"]
    }


def expected(run: Run) -> dict[str, list[tuple[float, int, float]]]:
    found: dict[str, list[tuple[float, int, float]]] = {}
    for point in run.points:
        for tag, value in point.values().items():
            found.setdefault(tag, []).append((point.at.timestamp(), point.step, pytest.approx(value, rel=1e-6)))
    for name, value in run.figures.items():
        last = run.points[-1]
        found[f"report/{name}"] = [(last.at.timestamp(), last.step, pytest.approx(value, rel=1e-6))]
    return found


def test_every_series_is_there_beside_the_loss(tmp_path: Path) -> None:
    write(tmp_path, ended())
    found = read(tmp_path, ended())
    assert {"loss", "power_w", "energy_j", "emissions_g", "g_per_kwh", "report/saved_g"} <= found.keys()
    assert found == expected(ended())


def test_a_run_that_goes_on_is_added_to_and_nothing_is_there_twice(tmp_path: Path) -> None:
    write(tmp_path, running(170), running(170), running(250), ended(), ended())
    assert read(tmp_path, ended()) == expected(ended())
    files = list((tmp_path / ended().job_id).glob("events.*"))
    assert len(files) == 3


def test_one_process_that_follows_a_run_keeps_one_file(tmp_path: Path) -> None:
    logger = open_logger(f"tensorboard:{tmp_path}", tmp_path)
    for run in (running(170), running(200), ended()):
        logger.write(run)
    logger.close()
    assert read(tmp_path, ended()) == expected(ended())
    assert len(list((tmp_path / ended().job_id).glob("events.*"))) == 1


def test_a_revision_replaces_what_was_written_and_spares_files_of_others(tmp_path: Path) -> None:
    other = tmp_path / ended().job_id / "events.out.tfevents.1.host"
    write(tmp_path, ended())
    other.write_bytes(b"")
    write(tmp_path, revised())
    assert read(tmp_path, revised()) == expected(revised())
    assert other.exists()


def test_a_note_that_was_lost_begins_the_run_again(tmp_path: Path) -> None:
    write(tmp_path, running(200))
    (tmp_path / ended().job_id / "lowtide.json").write_text("{")
    write(tmp_path, ended())
    assert read(tmp_path, ended()) == expected(ended())


def test_a_process_that_died_before_its_note_leaves_nothing_twice(tmp_path: Path) -> None:
    write(tmp_path, running(170))
    note = tmp_path / ended().job_id / "lowtide.json"
    before = note.read_text()
    write(tmp_path, running(250))
    note.write_text(before)
    write(tmp_path, ended())
    assert read(tmp_path, ended()) == expected(ended())


def test_many_short_processes_leave_no_more_than_some_files(tmp_path: Path) -> None:
    for at_s in range(110, 292, 6):
        write(tmp_path, running(at_s))
    write(tmp_path, ended())
    assert read(tmp_path, ended()) == expected(ended())
    assert len(list((tmp_path / ended().job_id).glob("events.*"))) <= 21


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        write(tmp_path / "file", ended())
