"""What other tools read: rows as CSV and Parquet, and CodeCarbon's emissions.csv; their sums are the report's."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.spec import InputError, iso
from orchestrator.accounting.account import Account
from orchestrator.accounting.ledger import ZoneFacts
from orchestrator.report import as_json, codecarbon, report_of
from orchestrator.report.export import COLUMNS, records, write_csv, write_parquet
from tests.unit.orchestrator.accounting.test_ledger import two_zones
from tests.unit.orchestrator.report.accounts import cluster, demo

CODECARBON = (
    "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,"
    "cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,country_name,country_iso_code,region,"
    "cloud_provider,cloud_region,os,python_version,codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,"
    "longitude,latitude,ram_total_size,tracking_mode,cpu_utilization_percent,gpu_utilization_percent,"
    "ram_utilization_percent,ram_used_gb,on_cloud,pue,wue"
)
"""The header that CodeCarbon 3.3.2 writes."""
ACCOUNTS = pytest.mark.parametrize("make", [demo, cluster, two_zones])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def total(rows: list[dict[str, str]], column: str) -> float:
    return sum(float(row[column]) for row in rows if row[column])


@ACCOUNTS
def test_the_rows_of_a_csv_add_up_to_the_report(make, tmp_path: Path):
    report = report_of(make())
    write_csv(report, tmp_path / "rows.csv")
    rows, document = read(tmp_path / "rows.csv"), as_json(report)
    assert tuple(rows[0]) == COLUMNS
    assert total(rows, "energy_j") == pytest.approx(document["energy_j"], rel=1e-9)
    assert total(rows, "emissions_g") == pytest.approx(document["emissions_g"]["operational"], rel=1e-9)
    assert rows[0]["start"] == iso(min(row.start for row in report.facts.rows))


def test_an_unread_row_or_an_unknown_hour_is_an_empty_cell():
    blind = replace(two_zones(), rows=[replace(row, energy_j=None) for row in two_zones().rows])
    assert {(r["energy_j"], r["emissions_g"]) for r in records(report_of(blind))} == {(None, None)}
    dark = list(records(report_of(replace(two_zones(), intensities=[]))))
    assert {(r["g_per_kwh"], r["emissions_g"], r["kind"]) for r in dark} == {(None, None, None)}
    gone = list(records(report_of(replace(two_zones(), zones={"DE": ZoneFacts(1.2)}, allowed=("DE",)))))
    assert (gone[-1]["zone"], gone[-1]["pue"], gone[-1]["emissions_g"]) == ("FR", None, None)


def test_a_row_across_two_intensities_has_their_mean():
    first = next(records(report_of(two_zones())))
    assert first["g_per_kwh"] == pytest.approx(0.75 * 400 + 0.25 * 100)
    assert (first["signal"], first["kind"], first["provider"], first["pue"]) == ("average", "measured", "csv", 1.2)


@ACCOUNTS
def test_parquet_has_the_same_rows_with_their_types(make, tmp_path: Path):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    report = report_of(make())
    write_parquet(report, tmp_path / "rows.parquet")
    read_back = pq.read_table(tmp_path / "rows.parquet")
    assert tuple(read_back.column_names) == COLUMNS
    assert str(read_back.schema.field("start").type) == "timestamp[us, tz=UTC]"
    assert read_back.to_pylist() == list(records(report))


@pytest.mark.parametrize("write", [write_csv, write_parquet, codecarbon.write])
def test_a_path_that_cannot_be_written_is_one_line(write, tmp_path: Path):
    with pytest.raises(InputError, match="cannot be written"):
        write(report_of(demo()), tmp_path / "none" / "file")


@ACCOUNTS
def test_codecarbon_s_columns_hold_the_report_in_codecarbon_s_units(make, tmp_path: Path):
    report = report_of(make())
    codecarbon.write(report, tmp_path / "emissions.csv")
    rows, document = read(tmp_path / "emissions.csv"), as_json(report)
    assert ",".join(rows[0]) == CODECARBON
    assert total(rows, "emissions") == pytest.approx(document["emissions_g"]["operational"] / 1000, rel=1e-9)
    assert total(rows, "energy_consumed") == pytest.approx(document["energy_j"] * document["pue"] / 3.6e6, rel=1e-9)
    parts = sum(total(rows, f"{part}_energy") for part in ("cpu", "gpu", "ram"))
    assert parts == pytest.approx(total(rows, "energy_consumed"))
    assert len(rows) == len(report.facts.segments)


def test_writing_again_replaces_the_job_s_rows_and_keeps_those_of_others(tmp_path: Path):
    path = tmp_path / "emissions.csv"
    other = dict.fromkeys(CODECARBON.split(","), "") | {"run_id": "other", "emissions": "0.5"}
    path.write_text("\n".join([CODECARBON, ",".join(other.values())]) + "\n")
    for _ in range(2):
        codecarbon.write(report_of(demo()), path)
    assert [row["run_id"] for row in read(path)] == ["other", *(s.segment_id for s in demo().segments)]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has not the columns of CodeCarbon"):
        codecarbon.write(report_of(demo()), path)


def test_an_overhead_counts_in_codecarbon_s_energy_too():
    account: Account = replace(two_zones(), zones={zone: ZoneFacts(1.5, node_overhead_w=60) for zone in ("DE", "FR")})
    report = report_of(account)
    assert report.ledger.overhead is not None
    kg = (report.ledger.total.operational_g + report.ledger.overhead.operational_g) / 1000
    rows = list(codecarbon.rows(report))
    assert sum(float(row["emissions"]) for row in rows) == pytest.approx(kg)
