"""`lowtide report --to`: the run is written, stdout stays JSON alone, and what is wrong is one line."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml

from cluster.api import MeterRow
from orchestrator.store import Store, facts, jobs
from orchestrator.store.schema import Segment
from tests.unit.orchestrator.cli.conftest import Lowtide
from tests.unit.orchestrator.specs import tiny

pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
SPEC = tiny()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with a job that is done."""
    (tmp_path / "lowtide.yaml").write_text(yaml.safe_dump({"zones": {"LAB": {"provider": "demo"}}}))
    monkeypatch.chdir(tmp_path)
    end = datetime.now(timezone.utc)
    start = end - timedelta(minutes=10)
    (tmp_path / "state").mkdir()
    store = Store(f"sqlite:///{tmp_path / 'state' / 'lowtide.db'}")
    with store.write() as session:
        job = jobs.submit(session, SPEC, start)
        job.state, job.ended_at = "done", end
        session.add(
            Segment(
                id="tiny-1", job_id="tiny", n=1, zone="LAB", workers=1, gpus=0, reason="start", run_until=end,
                ends_as="expired", ordered_at=start, ended_at=end, ended="done", start_step=0, step=10,
                trained_steps=10, trained_s=60.0, parts_s={},
            )
        )  # fmt: skip
        row = MeterRow("boot", "cpu", 1, "n", start, end, 600.0, "estimated", "train", "tiny", "tiny-1", 0)
        facts.add_rows(session, [row])
    store.close()
    return tmp_path


def test_a_job_s_run_is_written_beside_its_report(folder: Path, lowtide: Lowtide) -> None:
    code, out, err = lowtide("report", "tiny", "--to", "tensorboard:runs", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["energy_j"] == 600
    assert json.loads((folder / "runs" / "tiny" / "lowtide.json").read_text())["scalars"] > 20
    assert list((folder / "runs" / "tiny").glob("events.out.tfevents.*.lowtide"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tiny", "--to", "comet:x"), "'comet:x' names no logger; choose from tensorboard:FOLDER"),
        (("--to", "tensorboard:runs"), "JOB: is missing"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    folder: Path, lowtide: Lowtide, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = lowtide("report", *arguments)
    assert (code, out) == (2, "")
    assert told in err and len(err.splitlines()) == 1
    assert not (folder / "runs").exists()


def test_a_place_that_cannot_be_written_is_one_line_and_exit_3(folder: Path, lowtide: Lowtide) -> None:
    (folder / "runs").write_text("no folder")
    code, out, err = lowtide("report", "tiny", "--to", "tensorboard:runs")
    assert (code, out) == (3, "")
    assert "cannot be written" in err and len(err.splitlines()) == 1
