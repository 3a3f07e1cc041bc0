"""The spec's contract: what is read, what is refused, and in which words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.spec import InputError, JobSpec, iso, read_spec, seconds, utc

WHOLE = {
    "name": "tiny",
    "job": "distill",
    "project": "nlp",
    "not_before": "2026-03-01T06:00:00Z",
    "model": {"config": {"model_type": "llama", "hidden_size": 64}},
    "data": {"files": ["corpus/*.txt"], "tokenizer": "bytes", "sequence_length": 64, "holdout": 0.02},
    "training": {"steps": 20, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 3.0e-4, "seed": 0},
    "deepspeed": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
    "distill": {"teacher": {"config": {"model_type": "llama"}}, "temperature": 2.0, "alpha": 0.9},
    "workers": {"count": "1..4", "gpus": 1, "cpus": 2},
    "carbon": {
        "zones": ["DE", "FR"],
        "policy": "optimal",
        "finish_by": "36h",
        "max_intensity": 350,
        "windows": ["0 22 * * * 8h"],
        "budget": "5 kg",
    },
    "checkpoint": {"every": "15m", "keep": 2},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("some text\n")
    return tmp_path


def written(folder: Path, change: dict[str, Any]) -> Path:
    """WHOLE with the keys of `change` (dotted) set, or removed where the value is ...; as a file."""
    document = yaml.safe_load(yaml.safe_dump(WHOLE))
    for path, value in change.items():
        *sections, key = path.split(".")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        if value is ...:
            del section[key]
        else:
            section[key] = value
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_reads_every_section_with_units_in_the_names(folder: Path) -> None:
    spec = read_spec(written(folder, {}))
    assert spec.carbon.budget_g == 5000
    assert spec.checkpoint.every_s == 900
    assert spec.worker_counts() == (1, 2, 4)
    assert spec.zero_stage() == 2
    assert spec.data is not None
    assert spec.data.files == [str(folder / "corpus" / "*.txt")]


def test_a_stored_spec_is_read_back_as_it_was(folder: Path) -> None:
    spec = read_spec(written(folder, {}))
    assert JobSpec.model_validate(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("zero", "message"),
    [
        ({"stage": 3}, "workers.count: SGD cannot change its width at ZeRO stage 3; give one count, or AdamW"),
        ({"stage": 2, "offload_optimizer": {"device": "nvme"}}, "an optimizer on nvme cannot change its width"),
    ],
)
def test_an_optimizer_that_no_other_width_can_take_up_is_refused_with_a_range(
    folder: Path, zero: dict[str, Any], message: str
) -> None:
    change = {"deepspeed.zero_optimization": zero, "deepspeed.optimizer": {"type": "SGD", "params": {"lr": 0.1}}}
    with pytest.raises(InputError) as caught:
        read_spec(written(folder, change))
    assert message in str(caught.value)
    assert read_spec(written(folder, {**change, "workers.count": 2})).worker_counts() == (2,)
    assert read_spec(written(folder, {**change, "deepspeed.zero_optimization": {"stage": 1}})).zero_stage() == 1


def test_the_deadline_counts_from_submission_or_is_a_time(folder: Path) -> None:
    at = datetime(2026, 3, 1, tzinfo=timezone.utc)
    assert read_spec(written(folder, {})).finish_by_at(at) == at + timedelta(hours=36)
    fixed = read_spec(written(folder, {"carbon.finish_by": "2026-03-02T00:00:00+02:00"}))
    assert fixed.finish_by_at(at) == datetime(2026, 3, 1, 22, tzinfo=timezone.utc)


def test_deepspeed_may_be_a_file_of_its_own(folder: Path) -> None:
    (folder / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    assert read_spec(written(folder, {"deepspeed": "ds.json"})).zero_stage() == 3


REFUSED = [
    ({"training.stepz": 3}, "training.stepz: unknown key; did you mean 'steps'? valid here: steps, epochs"),
    ({"distill.teachr": 3}, "distill.teachr: unknown key; did you mean 'teacher'?"),
    ({"naem": "x", "name": ...}, "naem: unknown key; did you mean 'name'?"),
    ({"name": ...}, "name: is missing; add it"),
    ({"name": "a b"}, "name: "),
    ({"carbon.min_run": 30}, "carbon.min_run: 30 is not an amount with its unit; write e.g. 20m"),
    ({"carbon.min_run": "3 parsecs"}, "carbon.min_run: '3 parsecs' is not an amount with its unit"),
    ({"carbon.budget": "5"}, "carbon.budget: '5' is not an amount with its unit; write e.g. 5 kg"),
    ({"carbon.finish_by": "2026-03-01T06:00:00"}, "carbon.finish_by: 2026-03-01T06:00:00 says no time zone; add Z"),
    ({"carbon.policy": "best"}, "carbon.policy: "),
    ({"workers.count": "4..1"}, "workers.count: '4..1' is not a worker count"),
    ({"workers.count": 3}, "no count from 3 to 3 divides training.batch_size 8"),
    ({"training.epochs": 2}, "training: give exactly one of steps, epochs or tokens"),
    ({"deepspeed.train_batch_size": 4}, "deepspeed: train_batch_size follows from training.batch_size"),
    ({"distill": ...}, "job: distill needs a distill section; add it"),
    ({"script": {"entrypoint": "x.py"}}, "script has no meaning for job: distill"),
    ({"model.path": "weights"}, "model: give either config (a fresh model) or path"),
    ({"data.files": ["nothing/*.txt"]}, "data.files: 'nothing/*.txt' matches no file below"),
    ({"data.files": []}, "data.files: "),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[next(iter(change)) for change, _ in REFUSED])
def test_refuses_in_one_line_that_names_field_and_fix(folder: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_spec(written(folder, change))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_says_where_a_file_is_no_yaml(folder: Path) -> None:
    file = folder / "broken.yaml"
    file.write_text("name: [\n")
    with pytest.raises(InputError, match="is not YAML in line 2"):
        read_spec(file)


def test_says_that_a_file_is_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_spec(folder / "absent.yaml")


@given(st.floats(min_value=0.001, max_value=1e7, allow_nan=False))
def test_every_duration_is_read_as_it_was_written(duration_s: float) -> None:
    assert seconds(f"{duration_s:.12f}s") == pytest.approx(duration_s, abs=1e-9)


@given(st.datetimes(timezones=st.just(timezone.utc), min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1)))
def test_every_time_is_read_as_it_was_written_to_the_millisecond(at: datetime) -> None:
    assert abs(utc(iso(at)) - at) < timedelta(milliseconds=1)
