"""Weights & Biases, offline: the library's own run file holds every point once, and the report's figures."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.loggers import open_logger
from orchestrator.loggers.series import Run
from tests.unit.orchestrator.loggers.runs import ended, running

pytestmark = pytest.mark.filterwarnings("ignore")
"""Of the library's own imports."""
wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, *runs: Run) -> None:
    logger = open_logger("wandb:carbon", folder)
    for run in runs:
        logger.write(run)
    logger.close()
    wandb.teardown()  # as at the end of a process: the library's own service writes the file, and ends with it


def records(path: Path) -> Iterator[Any]:
    """The records of a run file: a header of seven bytes, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The run, its history, and its summary."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    about: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for record in records(path):
        if record.HasField("run"):
            about = {"id": record.run.run_id, "project": record.run.project, "name": record.run.display_name}
        if record.HasField("history"):
            history.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item})
        if record.HasField("summary"):
            summary |= {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.summary.update}
    return about, history, summary


def test_every_point_is_in_the_history_once_and_the_figures_in_the_summary(folder: Path) -> None:
    write(folder, running(170), running(170), running(250), ended(), ended())
    about, history, summary = read(folder)
    assert about == {"id": ended().job_id, "project": "carbon", "name": "tinystories-distill"}
    assert len(history) == len(ended().points)
    for line, point in zip(history, ended().points, strict=True):
        assert line["_timestamp"] == point.at.timestamp()
        assert line["step"] == point.step
        for name, value in point.values().items():
            assert line[name] == pytest.approx(value)
    assert summary["report/saved_g"] == pytest.approx(ended().figures["saved_g"])


def test_what_the_library_keeps_here_lies_in_the_folder_that_it_was_given(folder: Path) -> None:
    write(folder / "loggers", ended())
    assert {path.name for path in folder.iterdir()} == {"loggers"}
