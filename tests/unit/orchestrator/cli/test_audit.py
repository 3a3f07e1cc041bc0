"""`report --verify` as auditors meet it: one line and exit 0, or exit 1 with the row that does not fit."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

from cluster.api import MeterRow
from jobs.spec import JobSpec
from orchestrator.store import Store, facts, jobs
from tests.unit.orchestrator.cli.conftest import Lowtide
from tests.unit.orchestrator.cli.test_commands import SPEC

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with a job of three rows."""
    (tmp_path / "lowtide.yaml").write_text("zones: {LAB: {provider: demo}}")
    monkeypatch.chdir(tmp_path)
    store = Store(f"sqlite:///{tmp_path / 'state' / 'lowtide.db'}")
    with store.write() as session:
        jobs.submit(session, JobSpec.model_validate(SPEC), NOW)
        end = NOW + timedelta(minutes=1)
        for n in range(3):
            row = MeterRow("boot", "cpu", n, "node", NOW, end, 60.0, "estimated", "train", "tiny", "tiny-1", 0)
            facts.add_rows(session, [row])
    store.close()
    return tmp_path


def test_an_untouched_ledger_is_one_line(lowtide: Lowtide) -> None:
    code, out, err = lowtide("report", "--verify")
    assert (code, err) == (0, "")
    assert out.startswith("3 rows and 0 intensities are intact") and out.count("\n") == 1
    assert lowtide("report", "tiny", "--verify")[1].startswith("3 rows of tiny and 0 intensities are intact")
    document = json.loads(lowtide("report", "--verify", "--json")[1])
    assert (document["intact"], document["rows"], document["fault"]) == (True, 3, None)


def test_a_changed_row_is_exit_1_and_named(folder: Path, lowtide: Lowtide) -> None:
    store = Store(f"sqlite:///{folder / 'state' / 'lowtide.db'}")
    with store.write() as session:
        session.execute(text("UPDATE ledger_rows SET energy_j = 6 WHERE seq = 1"))
    store.close()
    code, out, err = lowtide("report", "--verify")
    assert (code, out) == (1, "")
    assert "ledger row 2 (boot, cpu, 1; job tiny" in err and err.count("\n") == 1
    code, out, _ = lowtide("report", "--verify", "--json")
    assert code == 1 and json.loads(out)["intact"] is False


def test_a_job_that_is_not_there_is_exit_2(lowtide: Lowtide) -> None:
    assert lowtide("report", "nope", "--verify")[0] == 2
