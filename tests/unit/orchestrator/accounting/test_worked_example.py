"""The example of docs/accounting.md, computed by hand there: the code says the same of the same tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import fsum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api import MeterRow
from orchestrator.accounting.account import Account, Intensity, SegmentFacts
from orchestrator.accounting.ledger import ZoneFacts, add_up
from orchestrator.report import as_json, report_of
from orchestrator.report.export import records

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "accounting.md").read_text(encoding="utf-8")
DAY = datetime(2026, 3, 1, tzinfo=timezone.utc)


def _table(header: str) -> list[dict[str, str]]:
    """The rows of the page's table whose first line is this one."""
    lines = PAGE[PAGE.index(f"\n{header}\n") + 1 :].split("\n\n")[0].splitlines()
    names, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _at(clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


def _row(seq: int, cells: Mapping[str, str]) -> MeterRow:
    owner: Any = (None, None, None)
    if cells["segment"] != "-":
        owner = ("j", f"j-{cells['segment']}", int(cells["rank"]))
    gpu, energy_j = f"GPU-{cells['GPU']}", 1000 * float(cells["kJ"])
    times = (_at(cells["start"]), _at(cells["end"]))
    return MeterRow("boot", gpu, seq, "node", *times, energy_j, "nvml-counter", cells["phase"], *owner, gpu)  # type: ignore[arg-type]


def example() -> Account:
    """The page's tables as facts."""
    (site,) = _table("| pue | embodied_g_per_gpu_hour | batch_size | sequence_length |")
    told = {
        cells["segment"]: cells
        for cells in _table("| segment | data | forward | backward | optimizer | communication |")
    }
    segments = [
        SegmentFacts(
            f"j-{cells['n']}",
            int(cells["n"]),
            "DE",
            2,
            "start" if cells["n"] == "1" else "resume",
            _at(cells["start"]),
            _at(cells["end"]),
            cells["ended"],  # type: ignore[arg-type]
            int(cells["from step"]),
            int(cells["to step"]),
            gpus=2,
            step_parts_s={part: float(parts_s) for part, parts_s in told[cells["n"]].items() if part != "segment"},
        )
        for cells in _table("| n | start | end | ended | from step | to step |")
    ]
    rows = [_row(n, cells) for n, cells in enumerate(_table("| segment | rank | GPU | start | end | phase | kJ |"))]
    said = [
        Intensity(
            "DE",
            _at(cells["start"]),
            _at(cells["end"]),
            float(cells["g/kWh"]),
            cells["kind"],  # type: ignore[arg-type]
            "em",
            fetched_at=DAY + timedelta(minutes=n),
        )
        for n, cells in enumerate(_table("| start | end | kind | g/kWh |"))
    ]
    return Account(
        "j",
        "by-hand",
        "done",
        _at("09:40"),
        _at("06:00"),
        {"DE": ZoneFacts(float(site["pue"]), float(site["embodied_g_per_gpu_hour"]))},
        ("DE",),
        step=300,
        steps=300,
        metrics={"flops_per_token": 6_196_608},
        segments=segments,
        rows=[row for row in rows if row.job_id is not None],
        left_rows=[row for row in rows if row.job_id is None],
        intensities=said,
        batch_size=int(site["batch_size"]),
        sequence_length=int(site["sequence_length"]),
    )


def _found(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document[int(part)] if part.isdigit() else document[part]
    return document


@pytest.mark.parametrize("cells", _table("| key | figure |"), ids=lambda cells: cells["key"])
def test_every_figure_of_the_page_is_the_report_s(cells: dict[str, str]) -> None:
    found = _found(as_json(report_of(example())), cells["key"])
    assert found == pytest.approx(float(cells["figure"]), rel=2e-6, abs=1e-9)


def test_the_page_s_steps_say_the_figures_of_its_table() -> None:
    text = re.sub(r"\s+", " ", PAGE[PAGE.index("**Energy.**") : PAGE.index("What `lowtide report --json`")])
    for figure in (
        "161.6 g",
        "54.96 g",
        "216.56 g",
        "76 g",
        "292.56 g",
        "-10.32 g",
        "478.675 g",
        "186.115 g",
        "134.915 g",
        "1.17506 MFLOP/J",
    ):
        assert figure in text


def test_run_now_stands_where_the_page_says() -> None:
    run_now = report_of(example()).savings.run_now
    assert run_now is not None
    assert (run_now.start, run_now.end) == (_at("06:00"), _at("07:25"))
    assert run_now.energy_j == pytest.approx(3_336_000)
    assert (run_now.operational_g, run_now.embodied_g) == (pytest.approx(410.675), pytest.approx(68))


@given(st.data())
def test_rows_cut_and_sent_again_in_any_order_give_the_same_report(data: st.DataObject) -> None:
    account = example()
    rows: list[MeterRow] = []
    for row in account.rows:
        share = data.draw(st.floats(0.1, 0.9))
        middle, energy_j = row.start + (row.end - row.start) * share, row.energy_j or 0.0
        cut_at = (middle - row.start) / (row.end - row.start)
        rows.append(replace(row, seq=2 * row.seq, end=middle, energy_j=energy_j * cut_at))
        rows.append(replace(row, seq=2 * row.seq + 1, start=middle, energy_j=energy_j * (1 - cut_at)))
    again = data.draw(st.permutations([*rows, *data.draw(st.lists(st.sampled_from(rows), max_size=10))]))
    report = report_of(replace(account, rows=again))
    document, expected = as_json(report), as_json(report_of(account))
    for key in ("energy_j", "saved_g", "site_saved_g", "revised_g", "per_sample_j"):
        assert document[key] == pytest.approx(expected[key], rel=1e-9), key
    exported = list(records(report))
    assert fsum(record["energy_j"] for record in exported) == pytest.approx(document["energy_j"], rel=1e-9)
    assert fsum(document["phases"].values()) == pytest.approx(document["energy_j"], rel=1e-9)
    training = {part: part_j for part, part_j in document["train_energy_j"].items() if part != "source"}
    assert fsum(training.values()) == pytest.approx(document["phases"]["train"], rel=1e-9)
    charged_g = fsum(record["emissions_g"] for record in exported)
    assert charged_g == pytest.approx(document["emissions_g"]["operational"], rel=1e-9)
    assert add_up(report.facts) == report.ledger
