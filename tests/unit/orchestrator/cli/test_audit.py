"""What auditors ask of `report`: whether the ledger is intact, its rows as files, a month of all jobs."""

from __future__ import annotations

import json
import re
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


def test_one_job_s_rows_are_written_as_files_beside_its_report(folder: Path, lowtide: Lowtide) -> None:
    code, out, _ = lowtide("report", "tiny", "--json", "--csv", "rows.csv", "--codecarbon", "emissions.csv")
    assert (code, json.loads(out)["energy_j"]) == (0, 180.0)
    assert len((folder / "rows.csv").read_text().splitlines()) == 4
    assert (folder / "emissions.csv").read_text().startswith("timestamp,project_name,run_id")
    code, out, err = lowtide("report", "--csv", "rows.csv")
    assert (code, out) == (2, "") and "JOB: is missing" in err


def test_a_month_adds_up_all_jobs(lowtide: Lowtide) -> None:
    code, out, _ = lowtide("report", "--month", "2026-03", "--by", "user", "--json")
    document = json.loads(out)
    assert (code, document["month"], document["by"], document["idle_j"]) == (0, "2026-03", "user", None)
    assert set(document) | set(document["rows"][0]) == told("report --month")
    assert (document["total"]["jobs"], document["total"]["energy_j"], document["rows"][0]["name"]) == (1, 180.0, None)
    assert "2026-03 by project" in lowtide("report", "--month", "2026-03")[1]
    assert lowtide("report", "--month", "march")[0] == 2
    assert lowtide("report", "--month", "2026-03", "--by", "team")[0] == 2


def test_the_json_of_a_verification_has_the_keys_of_the_readme(lowtide: Lowtide) -> None:
    document = json.loads(lowtide("report", "--verify", "--json")[1])
    assert set(document) | {"ledger_rows", "intensities"} == told("report --verify")


def told(command: str) -> set[str]:
    """The keys that the README's table of JSON names for a command."""
    readme = (Path(__file__).resolve().parents[4] / "README.md").read_text(encoding="utf-8")
    (text_,) = re.findall(rf"^\| `{command}` \| (.*`.*) \|$", readme[readme.index("## JSON") :], flags=re.MULTILINE)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`(.*?)`", text_))))
