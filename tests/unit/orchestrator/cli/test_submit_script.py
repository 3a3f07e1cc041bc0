"""Scripts at submission: a blind one is told so, and a working folder is kept as it was then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.spec import code
from orchestrator.store import Store, jobs
from orchestrator.store.schema import Job
from tests.unit.orchestrator.cli.conftest import Lowtide


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "asking.py").write_text("import lowtide\n")
    (tmp_path / "src" / "blind.py").write_text("print(1)\n")
    site = {"state": "./state", "zones": {"LAB": {"provider": "demo"}}, "slot": "1h"}
    (tmp_path / "lowtide.yaml").write_text(yaml.safe_dump(site))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name: str, **sections: Any) -> str:
    document = {"name": name, "job": "script", "script": {"entrypoint": f"{name}.py"}, "working_dir": "src"}
    Path(f"{name}.yaml").write_text(yaml.safe_dump({**document, "workers": {"gpus": 0}, **sections}))
    return f"{name}.yaml"


def stored(folder: Path, job_id: str) -> tuple[Job, list[str]]:
    store = Store(f"sqlite:///{folder / 'state' / 'lowtide.db'}")
    with store.read() as session:
        job, told = session.get_one(Job, job_id), [event.text for event in jobs.history(session, job_id)]
    store.close()
    return job, told


def test_a_blind_script_is_told_so_and_its_history_too(folder: Path, lowtide: Lowtide) -> None:
    code_, out, err = lowtide("submit", written("blind", carbon={"windows": ["0 22 * * * 8h"]}), "--json")
    assert code_ == 0 and json.loads(out)["state"] == "queued"
    assert "blind.yaml: script: 'blind.py' never imports lowtide, so it is checkpoint-blind" in err
    assert "where the end of a window, a pause or a lost node ends it, it begins from scratch" in err
    job, told = stored(folder, "blind")
    assert job.spec["carbon"]["policy"] == "window"
    assert any("checkpoint-blind" in text for text in told)
    _, _, err = lowtide("plan", "blind.yaml")
    assert "checkpoint-blind" in err


def test_a_script_that_asks_is_told_nothing(lowtide: Lowtide) -> None:
    code_, _, err = lowtide("submit", written("asking"))
    assert (code_, err) == (0, "")


def test_what_is_submitted_is_what_runs_whatever_is_edited_afterwards(folder: Path, lowtide: Lowtide) -> None:
    lowtide("submit", written("asking"))
    (folder / "src" / "asking.py").write_text("raise RuntimeError('half an edit')\n")
    job, _ = stored(folder, "asking")
    archive = Path(job.spec["working_dir"])
    assert archive.parent == folder / "state" / "code"
    code.unpack(archive, folder / "there")
    assert (folder / "there" / "asking.py").read_text() == "import lowtide\n"


def test_a_plan_copies_nothing(folder: Path, lowtide: Lowtide) -> None:
    lowtide("plan", written("asking"))
    assert not (folder / "state" / "code").exists()
