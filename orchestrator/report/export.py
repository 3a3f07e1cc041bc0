"""The job's ledger rows with their grams, as a table for other tools.
In: a Report. Out: records, as CSV or Parquet; an unknown figure is an empty cell, never a zero.
`lowtide report --csv` and `--parquet` write them; their sums are the report's energy and operational grams.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from math import fsum
from pathlib import Path
from typing import Any

from cluster.api import MeterRow
from jobs.spec import InputError, Unavailable, iso
from orchestrator.accounting.account import ZoneFacts, own_rows
from orchestrator.accounting.charge import Curve
from orchestrator.accounting.ledger import curves_of
from orchestrator.accounting.pue import mean_of
from orchestrator.report.build import Report

COLUMNS = (
    "job", "segment", "zone", "rank", "host", "node", "device", "uuid", "source", "phase", "start", "end", "energy_j",
    "pue", "g_per_kwh", "signal", "kind", "provider", "emissions_g",
)  # fmt: skip
_NUMBERS = ("energy_j", "pue", "g_per_kwh", "emissions_g")
_TIMES = ("start", "end")


def records(report: Report) -> Iterator[dict[str, Any]]:
    """A record of COLUMNS for each row, oldest first: times as datetimes, None is not known.

    `g_per_kwh` is the mean of the known part of the row; where several kinds or providers charge it, all are named.
    """
    facts, curves = report.facts, curves_of(report.facts)
    uncharged = dict.fromkeys(COLUMNS[COLUMNS.index("pue") :])
    zones = {segment.segment_id: segment.zone for segment in facts.segments}
    for row in own_rows(facts):
        zone = zones.get(row.segment_id or "", "")
        yield {
            "job": facts.job_id,
            "segment": row.segment_id,
            "zone": zone or None,
            "rank": row.rank,
            "host": row.host_boot,
            **{name: getattr(row, name) for name in ("node", "device", "uuid", "source", "phase", *_TIMES)},
            "energy_j": row.energy_j,
            **(_charged(row, facts.zones[zone], curves[zone]) if zone in facts.zones else uncharged),
        }


def _charged(row: MeterRow, zone: ZoneFacts, curve: Curve) -> dict[str, Any]:
    found = curve.overlaps(row.start, row.end)
    known = fsum(share for _, share in found)
    charge = None if row.energy_j is None else curve.charge(row.start, row.end, row.energy_j, zone.pue)
    return {
        "pue": mean_of(zone.pue, row.start, row.end),
        "g_per_kwh": fsum(share * (piece.g_per_kwh or 0.0) for piece, share in found) / known if known else None,
        "signal": _named(piece.signal for piece, _ in found),
        "kind": _named(piece.kind for piece, _ in found),
        "provider": _named(piece.provider for piece, _ in found),
        "emissions_g": charge.emissions_g if charge is not None and known else None,
    }


def _named(words: Iterator[str]) -> str | None:
    return "+".join(sorted(set(words))) or None


def write_csv(report: Report, path: Path) -> None:
    """Write the records as CSV, times as ISO 8601 UTC with Z; InputError where the file cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for record in records(report):
                writer.writerow({k: iso(v) if isinstance(v, datetime) else v for k, v in record.items()})
    except OSError as fault:
        raise InputError(f"--csv: {path} cannot be written ({fault.strerror}); give another path") from None


def write_parquet(report: Report, path: Path) -> None:
    """Write the records as Parquet, times in microseconds of UTC.

    Raises InputError where the file cannot be written, Unavailable where pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
        import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise Unavailable("--parquet needs pyarrow; install it (`pip install pyarrow`), or take --csv") from None
    types = {name: pa.float64() for name in _NUMBERS} | {name: pa.timestamp("us", tz="UTC") for name in _TIMES}
    schema = pa.schema([(name, pa.int64() if name == "rank" else types.get(name, pa.string())) for name in COLUMNS])
    try:
        pq.write_table(pa.Table.from_pylist(list(records(report)), schema=schema), str(path))
    except OSError as fault:
        raise InputError(
            f"--parquet: {path} cannot be written ({fault.strerror or fault}); give another path"
        ) from None
