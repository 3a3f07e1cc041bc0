"""What the README promises is what the code does: its examples are read, its commands, metrics and JSON exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import typer
from croniter import croniter

from cluster.api import Gauge, MeterRow
from jobs.spec import InputError, JobSpec, read_spec
from jobs.spec.document import Section
from orchestrator.accounting.account import Account, Intensity, SegmentFacts, Transfer, ZoneFacts
from orchestrator.admission import LATER, admit
from orchestrator.cli.app import app
from orchestrator.controller.figures import Figures
from orchestrator.controller.gauges import gauges
from orchestrator.plan import POLICIES, OperatingPoint, Stretch
from orchestrator.report import as_json, report_of
from orchestrator.signal.catalogue import OWN
from orchestrator.signal.forecast import Forecast, Point, Share
from orchestrator.signal.sources import Signals
from orchestrator.simulate import Recorded, Setting, simulate, tasks_each
from orchestrator.site import FILE_NAME, Site, find_site, read_site
from orchestrator.status import status
from orchestrator.store import Store, facts, forecasts, jobs
from orchestrator.store.schema import Job, Segment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOW = datetime(2026, 3, 1, 6, tzinfo=timezone.utc)


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


DOCUMENTS = {block.split("\n", 1)[0].removeprefix("# "): block for block in _blocks("yaml")}
"""The YAML blocks by the file name in their first line."""
SPECS = sorted(DOCUMENTS.keys() - {FILE_NAME})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the README's files, and what they name."""
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("some text to learn\n", encoding="utf-8")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "train.py").write_text("import lowtide\n", encoding="utf-8")
    for name in ("lab.csv", "fr.csv"):
        (tmp_path / name).write_text(
            "start_utc,g_per_kwh\n2026-03-01T00:00:00Z,300\n2026-03-01T01:00:00Z,\n", encoding="utf-8"
        )
    return tmp_path


def _sections(model: type[Section]) -> Iterator[str]:
    """Every key of a document, as users write it."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        for part in re.findall(r"\b([A-Z]\w+)", str(field.annotation)):
            inner = {each.__name__: each for each in Section.__subclasses__()}.get(part)
            if inner is not None:
                yield from _sections(inner)


def test_every_yaml_block_is_a_named_file() -> None:
    assert len(SPECS) == 3
    assert FILE_NAME in DOCUMENTS
    assert all(re.fullmatch(r"[a-z]+\.yaml", name) for name in DOCUMENTS)


@pytest.mark.parametrize("name", SPECS)
def test_a_job_spec_of_the_readme_is_read_and_admitted(name: str, folder: Path) -> None:
    spec = read_spec(folder / name)
    site = read_site(folder / FILE_NAME) if spec.carbon.zones else find_site(None, Path("/"))
    admit(spec, site, name)


def test_the_site_file_of_the_readme_is_read_and_its_providers_can_be_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ELECTRICITY_MAPS_TOKEN", "WATTTIME_USER", "WATTTIME_PASSWORD"):
        monkeypatch.setenv(variable, "a-secret")
    site = read_site(folder / FILE_NAME)
    Signals(site.zones, site.providers, folder / "cache").check()


def test_the_table_of_providers_is_that_of_the_catalogue() -> None:
    table = README[README.index("### Providers") : README.index("A zone plans by one signal")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(OWN)


def test_the_whole_spec_names_every_key_and_the_site_file_too() -> None:
    for model, text in ((JobSpec, DOCUMENTS["distill.yaml"]), (Site, README)):
        missing = {key for key in _sections(model) if not re.search(rf"(\b{key}:|`{key}`)", text)}
        assert not missing


def test_what_is_marked_not_yet_is_what_admission_refuses() -> None:
    marked = re.findall(r"^\s*# (\w+):.*not yet$", DOCUMENTS["distill.yaml"], flags=re.MULTILINE)
    assert set(marked) == {field.rpartition(".")[2] for field in LATER}
    policies = re.search(r"policy: \w+ +# (.*?);", DOCUMENTS["distill.yaml"])
    assert policies is not None and set(policies[1].split(" | ")) == set(POLICIES)


def test_the_jobs_that_are_not_there_yet_are_refused(folder: Path) -> None:
    text = (folder / "first.yaml").read_text(encoding="utf-8").replace("job: train", "job: compress")
    (folder / "first.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError, match="not supported yet"):
        admit(read_spec(folder / "first.yaml"), find_site(None, Path("/")), "first.yaml")


def test_every_command_and_option_is_in_the_readme() -> None:
    section = README[README.index("## Commands") :].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)(.*?)` \|", section, flags=re.MULTILINE))
    told = {name: set(re.findall(r"--[\w-]+", row)) for name, row in rows.items()}
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = {
        name: {param.opts[0] for param in command.params if param.opts[0].startswith("--")}
        for name, command in commands.items()
    }
    assert found == told


def test_the_cron_lines_are_commands_that_exist() -> None:
    (block,) = _blocks("crontab")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in block.splitlines():
        fields = line.split()
        assert croniter.is_valid(" ".join(fields[:5]))
        assert fields[5:7] == ["lowtide", "--site"]
        commands[fields[8]].make_context(fields[8], fields[9:])  # a wrong or missing option raises


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def _training_job(store: Store, spec: JobSpec) -> str:
    """A job half-way through its first segment, with its forecast and a metered minute of each of two ranks."""
    points = (Point(NOW, NOW + timedelta(hours=9), 200.0, "measured"),)
    with store.write() as session:
        job = jobs.submit(session, spec, NOW)
        job.step, job.steps, job.state, job.zone = 10, 20, "running", "DEMO"
        session.add(
            Segment(
                id=f"{job.id}-1",
                job_id=job.id,
                n=1,
                zone="DEMO",
                workers=2,
                gpus=0,
                reason="start",
                run_until=NOW + timedelta(hours=1),
                ends_as="expired",
                ordered_at=NOW,
                start_step=0,
                step=10,
                trained_steps=10,
                trained_s=60.0,
                parts_s={},
            )
        )
        end = NOW + timedelta(seconds=60)
        facts.add_rows(
            session,
            [
                MeterRow(
                    "boot", f"cpu-{rank}", 1, "host", NOW, end, 600.0, "estimated", "train", job.id, f"{job.id}-1", rank
                )
                for rank in (0, 1)
            ],
        )
        given = Forecast("DEMO", "demo", "average", points, NOW)
        forecasts.keep(session, "DEMO", "plan", NOW, given, None)
        facts.add_current(session, given, NOW)
        return job.id


def test_the_metrics_are_those_of_the_readme_with_their_labels(store: Store, folder: Path) -> None:
    _training_job(store, read_spec(folder / "first.yaml"))
    with store.read() as session:
        found: list[Gauge] = gauges(session, find_site(None, Path("/")), NOW + timedelta(seconds=61), Figures())
    rows = re.findall(r"^\| `(lowtide_\w+)` \| (.*?) \|$", README, flags=re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert {gauge.name: set(gauge.labels) for gauge in found} == told


def _told_keys(command: str) -> set[str]:
    (text,) = re.findall(rf"^\| `{command}` \| (.*`.*) \|$", README[README.index("## JSON") :], flags=re.MULTILINE)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`(.*?)`", text))))


def test_the_json_of_status_has_the_keys_of_the_readme(store: Store, folder: Path) -> None:
    job_id = _training_job(store, read_spec(folder / "first.yaml"))
    with store.read() as session:
        document = status(session, find_site(None, Path("/")), session.get_one(Job, job_id), NOW)
    assert set(document) == _told_keys("status")


def test_the_json_of_a_forecast_has_the_keys_of_the_readme() -> None:
    points = (Point(NOW, NOW + timedelta(hours=1), 200.0),)
    shares = (Share(NOW, NOW + timedelta(hours=1), 60.0),)
    document = forecasts.to_json(Forecast("DE", "csv", "average", points, NOW, renewable=shares))
    assert {*document, *document["points"][0], *document["renewable"][0]} == _told_keys("forecast")


def test_the_json_of_a_simulation_has_the_keys_of_the_readme() -> None:
    hours = [(NOW + timedelta(hours=hour), NOW + timedelta(hours=hour + 1)) for hour in range(4)]
    setting = Setting({"DE": Recorded("DE", tuple(Stretch(start, end, 100.0) for start, end in hours))})
    tasks = tasks_each(setting, 3600.0, 7200.0, 7200.0, (OperatingPoint(1, 1.0, 100.0),))
    document = simulate(replace(setting, gpus={"DE": 1}), tasks, ["now", "optimal"]).to_json()
    assert {*document, *document["rows"][0], *document["fleet"]} == _told_keys("simulate")


def test_the_json_of_a_report_has_the_keys_of_the_readme() -> None:
    end = NOW + timedelta(seconds=60)
    account = Account(
        job_id="a",
        name="a",
        state="running",
        at=end,
        submitted_at=NOW,
        zones={"DE": ZoneFacts()},
        allowed=("DE",),
        step=10,
        steps=20,
        segments=[
            SegmentFacts(
                "a-1",
                1,
                "DE",
                1,
                "start",
                NOW,
                end,
                "paused",
                start_step=0,
                end_step=10,
                trained_s=60.0,
                first_step_s=1.0,
                step_parts_s={"forward": 60.0},
                parts_s={"imports": 4.0, "first_step": 1.0, "end": 2.0},
            )
        ],
        rows=[MeterRow("boot", "cpu", 1, "host", NOW, end, 600.0, "estimated", "train", "a", "a-1", 0)],
        intensities=[Intensity("DE", NOW, NOW + timedelta(hours=2), 200.0)],
        transfers=[Transfer(NOW, "DE", 1000, "FR", 2.0)],
    )
    document = as_json(report_of(account))
    keys = {*document, "name"}  # `name` stands for a phase
    parts = ("emissions_g", "signal", "uncertainty", "train_energy_j", "starts", "stops")
    lists = ("segments", "workers", "moves")
    for part in (*(document[name][0] for name in lists), *(document[name] for name in parts)):
        keys |= part.keys()
    assert keys == _told_keys("report")
