"""The commands as users meet them: exit codes, one clear line, JSON alone on stdout, nothing refused is stored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

import jobs
from orchestrator.store import Store
from orchestrator.store.jobs import submit
from orchestrator.store.schema import Segment
from tests.unit.orchestrator.cli.conftest import Lowtide
from tests.unit.orchestrator.specs import tiny

SPEC: dict[str, Any] = {
    "name": "tiny",
    "job": "train",
    "model": {"config": {"model_type": "llama", "hidden_size": 32}},
    "data": {"files": ["*.txt"]},
    "training": {"steps": 20, "batch_size": 8},
    "workers": {"count": 2, "gpus": 1},
    "carbon": {"zones": ["LAB"], "finish_by": "36h"},
}
SITE = {"zones": {"LAB": {"provider": "demo", "gpus": 2}, "FAR": {"provider": "demo", "gpus": 1}}, "slot": "1h"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "lowtide.yaml").write_text(yaml.safe_dump(SITE, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, **changes: Any) -> str:
    (folder / "job.yaml").write_text(yaml.safe_dump({**SPEC, **changes}))
    return "job.yaml"


REFUSED = [
    ({"nmae": "x"}, "job.yaml: nmae: unknown key; did you mean 'name'?"),
    ({"carbon": {"min_run": 20}}, "job.yaml: carbon.min_run: 20 is not an amount with its unit"),
    ({"data": {"files": ["none/*.txt"]}}, "job.yaml: data.files: 'none/*.txt' matches no file"),
    ({"carbon": {"finish_by": "2020-01-01T00:00:00Z"}}, "job.yaml: carbon.finish_by: 2020-01-01T00:00:00Z has passed"),
    ({"carbon": {"zones": ["LAP"]}}, "job.yaml: carbon.zones: the site has no zone 'LAP'; did you mean 'LAB'?"),
    (
        {"workers": {"count": 4, "gpus": 1}},
        "job.yaml: workers: 4 workers of 1 GPUs need 4, the site declares at most 2",
    ),
    ({"working_dir": "src"}, "/src is no folder; mend the path"),
    ({"carbon": {"windows": ["61 22 * * * 8h"]}}, "job.yaml: carbon.windows: '61 22 * * *' is not a cron expression"),
    ({"carbon": {"windows": ["0 22 30 2 * 8h"]}}, "job.yaml: carbon.windows: "),
    ({"not_before": "2099-01-01T00:00:00Z"}, "is before not_before 2099-01-01T00:00:00Z; give a later time"),
]


@pytest.mark.parametrize("command", ["submit", "plan", "run"])
@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[str(next(iter(change))) for change, _ in REFUSED])
def test_wrong_input_is_one_line_exit_2_and_nothing_stored(
    folder: Path, lowtide: Lowtide, command: str, change: dict[str, Any], says: str
) -> None:
    code, out, err = lowtide(command, written(folder, **change))
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("lowtide: ") and err.count("\n") == 1
    assert json.loads(lowtide("status", "--json")[1]) == []


def test_a_submitted_job_is_queued_and_shown(folder: Path, lowtide: Lowtide) -> None:
    code, out, _ = lowtide("submit", written(folder), "--json")
    assert (code, json.loads(out)) == (0, {"job": "tiny", "state": "queued"})
    code, out, _ = lowtide("status", "--json")
    shown = json.loads(out)[0]
    contract = {"job", "name", "state", "step", "steps", "zone", "workers", "next_change_at", "energy_j", "emissions_g"}
    assert contract <= set(shown)
    assert (shown["state"], shown["step"], shown["energy_j"]) == ("queued", 0, 0)


def test_jobs_that_ended_long_ago_are_shown_where_asked_for(folder: Path, lowtide: Lowtide) -> None:
    began = datetime(2026, 3, 1, tzinfo=timezone.utc)
    lowtide("status")
    with closing(Store(f"sqlite:///{folder / 'state' / 'lowtide.db'}")) as store, store.write() as session:
        for n in range(23):
            job = submit(session, tiny(), began + timedelta(minutes=n))
            if n < 22:
                job.state, job.reason, job.ended_at = (
                    "done",
                    "all steps\nare done",
                    began + timedelta(hours=1, minutes=n),
                )
    code, out, err = lowtide("status")
    lines = out.splitlines()
    assert (code, len(lines), lines[0].split()[:3]) == (0, 22, ["job", "state", "step"])
    assert lines[1].startswith("tiny-3") and lines[1].endswith("all steps are done")
    assert err == "2 earlier jobs have ended; `lowtide status --all` shows them, too\n"
    assert len(lowtide("status", "--all")[1].splitlines()) == 24
    assert len(json.loads(lowtide("status", "--all", "--json")[1])) == 23


def test_a_dry_run_shows_the_plan_and_stores_nothing(folder: Path, lowtide: Lowtide) -> None:
    code, out, _ = lowtide("plan", written(folder), "--json")
    assert code == 0
    plan = json.loads(out)
    contract = {"job", "policy", "finish_at", "emissions_g", "run_now_emissions_g", "saved_percent", "slots"}
    assert contract <= set(plan)
    assert plan["basis"] == "assumed"
    assert set(plan["slots"][0]) == {"start", "end", "zone", "workers"}
    assert json.loads(lowtide("status", "--json")[1]) == []


def test_a_report_before_anything_ran_invents_nothing(folder: Path, lowtide: Lowtide) -> None:
    lowtide("submit", written(folder))
    report = json.loads(lowtide("report", "tiny", "--json")[1])
    assert report["segments"] == report["workers"] == []
    assert report["saved_g"] is None and report["run_now_emissions_g"] is None
    assert report["signal"]["coverage_percent"] is None


def test_wishes_are_kept_for_the_next_pass(folder: Path, lowtide: Lowtide) -> None:
    lowtide("submit", written(folder))
    assert lowtide("pause", "tiny")[0] == 0
    assert lowtide("resume", "tiny")[0] == 0
    assert lowtide("cancel", "tiny")[0] == 0
    code, _, err = lowtide("resume", "tiny")
    assert code == 2 and "is being cancelled; submit it again" in err
    history = [event["text"] for event in json.loads(lowtide("logs", "tiny", "--json")[1])]
    assert history == ["submitted", "pause asked for", "resume asked for", "cancel asked for"]


def test_reading_logs_starts_no_ray(folder: Path, lowtide: Lowtide) -> None:
    lowtide("submit", written(folder))
    at = Store(f"sqlite:///{folder / 'state' / 'lowtide.db'}")
    now = datetime.now(timezone.utc)
    with at.write() as session:
        session.add(
            Segment(
                id="tiny-1", job_id="tiny", n=1, zone="LAB", workers=2, gpus=2, reason="start", run_until=now,
                ends_as="paused", ordered_at=now, start_step=0, step=0, parts_s={}, ended="paused", ended_at=now,
            )
        )  # fmt: skip
    at.close()
    code, out, _ = lowtide("logs", "tiny")
    assert code == 0
    assert "(its output is gone: the embedded Ray does not run)" in out
    assert not (folder / "state" / "ray.json").exists()


def test_a_tick_cancels_without_attaching_to_ray(folder: Path, lowtide: Lowtide) -> None:
    lowtide("submit", written(folder))
    lowtide("cancel", "tiny")
    assert lowtide("tick")[0] == 0
    assert json.loads(lowtide("status", "tiny", "--json")[1])[0]["state"] == "cancelled"
    assert not (folder / "state" / "ray.json").exists()


def test_a_forecast_says_where_it_came_from(lowtide: Lowtide) -> None:
    code, out, _ = lowtide("forecast", "LAB", "--json")
    assert code == 0
    forecast = json.loads(out)
    contract = {"zone", "provider", "signal", "unit", "issued_at", "fetched_at", "stale", "points"}
    assert contract <= set(forecast)
    assert (forecast["zone"], forecast["provider"], forecast["signal"], forecast["stale"]) == (
        "LAB", "demo", "average", False,
    )  # fmt: skip
    assert {"start", "end", "g_per_kwh", "kind"} <= set(forecast["points"][0])
    code, out, _ = lowtide("forecast", "LAB")
    assert "generated" in out and "g/kWh" in out and "forecast by demo" in out


def test_an_outage_is_said_and_never_a_zero(folder: Path, lowtide: Lowtide) -> None:
    nobody = {"electricity_maps": {"base_url": "http://127.0.0.1:9/v4", "timeout": "1s"}}
    site = {"zones": {"LAB": {"provider": "electricity_maps"}}, "providers": nobody}
    (folder / "lowtide.yaml").write_text(yaml.safe_dump(site))
    code, out, err = lowtide("forecast", "LAB", "--json")
    assert (code, out) == (3, "")
    assert "no forecast of LAB: electricity_maps: zone LAB" in err and err.count("\n") == 1
    lowtide("submit", written(folder))
    lowtide("tick")
    shown = json.loads(lowtide("status", "tiny", "--json")[1])[0]
    assert (shown["state"], shown["emissions_g"]) == ("waiting", 0)
    assert shown["reason"] == "waits for a forecast of LAB: none has come yet"


@pytest.mark.parametrize("command", [("status", "nope"), ("logs", "nope"), ("report", "nope"), ("pause", "nope")])
def test_an_unknown_job_is_wrong_input(lowtide: Lowtide, command: tuple[str, ...]) -> None:
    code, _, err = lowtide(*command)
    assert (code, err) == (2, "lowtide: JOB: no job is called 'nope'; none is stored yet\n")


def test_an_unknown_zone_is_wrong_input(lowtide: Lowtide) -> None:
    code, _, err = lowtide("forecast", "MARS")
    assert (code, err) == (2, "lowtide: ZONE: the site has no zone 'MARS'; it has LAB, FAR\n")


def test_a_store_that_cannot_be_reached_is_exit_3(folder: Path, lowtide: Lowtide) -> None:
    (folder / "lowtide.yaml").write_text(yaml.safe_dump({**SITE, "state": "a.txt"}))
    code, _, err = lowtide("status")
    assert code == 3
    assert err.startswith("lowtide: the state folder") and err.count("\n") == 1


def test_help_imports_nothing_heavy() -> None:
    heavy = ("ray", "torch", "requests", "sqlalchemy", "numpy", "matplotlib", "pydantic")
    code = f"import sys, orchestrator.cli.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "example", sorted((Path(jobs.__file__).parent / "examples").glob("*.yaml")), ids=lambda p: p.stem
)
def test_a_shipped_example_is_admitted(folder: Path, lowtide: Lowtide, example: Path) -> None:
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text("some text")
    (folder / "teacher").mkdir()
    shutil.copytree(example.parent, folder, dirs_exist_ok=True)
    code, out, err = lowtide("plan", example.name, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["slots"]
