"""The job's segments as rows of CodeCarbon's emissions.csv, so that what reads that file reads lowtide too.
In: a Report, and a file that may hold other runs. Out: the file with the job's rows; other rows stay.
`lowtide report --codecarbon` writes it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from math import fsum
from pathlib import Path

from cluster.api import MeterRow
from jobs.spec import InputError
from orchestrator.accounting.account import Account, SegmentFacts, end_of, own_rows
from orchestrator.accounting.charge import J_PER_KWH
from orchestrator.accounting.ledger import add_up
from orchestrator.accounting.pue import mean_of
from orchestrator.report.build import Report

COLUMNS = (
    "timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate", "cpu_power",
    "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed", "water_consumed",
    "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os", "python_version",
    "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude",
    "ram_total_size", "tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent",
    "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue",
)  # fmt: skip
"""Of CodeCarbon 3.3 (codecarbon/output_methods/emissions_data.py), in its order."""

PARTS = ("cpu", "gpu", "ram")


def rows(report: Report) -> Iterator[dict[str, object]]:
    """A row a segment, in CodeCarbon's units: kg, kWh, W, s, litres; energies and watts times PUE, as there.

    `energy_consumed` and `emissions` hold the node's overhead too. What lowtide does not know stays out.
    """
    for segment in sorted(report.facts.segments, key=lambda segment: segment.n):
        yield {name: value for name, value in _row(report, segment).items() if value is not None}


def _row(report: Report, segment: SegmentFacts) -> dict[str, object | None]:
    facts, end = report.facts, end_of(segment, report.facts)
    own = [row for row in own_rows(facts) if row.segment_id == segment.segment_id]
    alone = add_up(_alone(report, segment))
    zone = facts.zones.get(segment.zone)
    pue = mean_of(zone.pue, segment.started_at, end) if zone is not None else 1.0
    duration_s = (end - segment.started_at).total_seconds()
    kwh = {part: fsum(r.energy_j or 0.0 for r in own if _part(r) == part) * pue / J_PER_KWH for part in PARTS}
    overhead_kwh = alone.overhead.energy_j * pue / J_PER_KWH if alone.overhead is not None else 0.0
    overhead_g = alone.overhead.operational_g if alone.overhead is not None else 0.0
    emissions_g = None if alone.total.emissions_g is None else alone.total.emissions_g + overhead_g
    return {
        "timestamp": end.strftime("%Y-%m-%dT%H:%M:%S"),
        "project_name": facts.project or facts.name,
        "run_id": segment.segment_id,
        "experiment_id": facts.job_id,
        "duration": duration_s,
        "emissions": None if emissions_g is None else emissions_g / 1000,
        "emissions_rate": None if emissions_g is None or not duration_s else emissions_g / 1000 / duration_s,
        **{f"{part}_power": kwh[part] * J_PER_KWH / duration_s if duration_s else None for part in PARTS},
        **{f"{part}_energy": kwh[part] for part in PARTS},
        "energy_consumed": fsum(kwh.values()) + overhead_kwh,
        "water_consumed": alone.water_l,
        "region": segment.zone,
        "gpu_count": segment.gpus,
        "tracking_mode": "lowtide",
        "on_cloud": "N",
        "pue": pue,
        "wue": zone.wue_l_per_kwh if zone is not None else None,
    }


def _part(row: MeterRow) -> str:
    return "gpu" if row.uuid is not None else "ram" if row.device == "dram" else "cpu"


def _alone(report: Report, segment: SegmentFacts) -> Account:
    return replace(
        report.facts,
        segments=[segment],
        rows=[row for row in own_rows(report.facts) if row.segment_id == segment.segment_id],
        transfers=(),
    )


def write(report: Report, path: Path) -> None:
    """Put the job's rows into the file, in place of its earlier ones; InputError where the file is another one."""
    new = list(rows(report))
    ours = {row["run_id"] for row in new}
    try:
        kept = [row for row in _there(path) if row["run_id"] not in ours]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows([*kept, *new])
    except OSError as fault:
        raise InputError(f"--codecarbon: {path} cannot be written ({fault.strerror}); give another path") from None


def _there(path: Path) -> list[dict[str, str]]:
    if not path.exists() or not path.stat().st_size:
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if set(reader.fieldnames or ()) != set(COLUMNS):
            raise InputError(f"--codecarbon: {path} has not the columns of CodeCarbon 3.3; give another path")
        return list(reader)
