"""The report's JSON: exactly the contract's keys, sums that agree, and nulls where nothing is known.
In: the accounts beside it. Out: nothing.
`test_shown` looks at what people see.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cluster.api import MeterRow
from orchestrator.accounting.account import Transfer
from orchestrator.report import build, report_of
from orchestrator.report.words import moves
from tests.unit.orchestrator.report.accounts import cluster, demo

KEYS = {
    "job", "state", "step", "metrics", "segments", "workers", "phases", "energy_j", "unmetered_s", "pue", "emissions_g",
    "run_now_emissions_g", "saved_g", "saved_percent", "signal",
}  # fmt: skip
ADDED = {
    "moves", "starts", "stops",
    "notes", "overhead_j", "water_l", "site_saved_g", "observed", "revised_g", "marginal_emissions_g", "uncertainty",
    "per_sample_j", "per_token_j", "samples_per_j", "tokens_per_j", "flop_per_j", "train_energy_j",
    "average_emissions_g",
}  # fmt: skip


@pytest.mark.parametrize("make", [demo, cluster])
def test_json_has_the_keys_of_the_contract(make):
    report = json.loads(json.dumps(build(make()), allow_nan=False))
    assert set(report) == KEYS | ADDED
    assert set(report["emissions_g"]) == {"operational", "overhead", "embodied", "transfer", "total"}
    assert set(report["signal"]) == {"provider", "kind", "coverage_percent"} | {"measured_percent"}
    for segment in report["segments"]:
        assert set(segment) == {"start", "end", "zone", "workers", "reason", "energy_j", "emissions_g"}
    for worker in report["workers"]:
        assert set(worker) == {"rank", "node", "device", "uuid", "source", "energy_j"}


@pytest.mark.parametrize("make", [demo, cluster])
def test_every_breakdown_adds_up_to_the_totals(make):
    account = make()
    report = build(account)
    rows_j = sum(row.energy_j for row in account.rows)
    assert report["energy_j"] == pytest.approx(rows_j, rel=1e-9)
    assert sum(report["phases"].values()) == pytest.approx(rows_j, rel=1e-9)
    assert sum(worker["energy_j"] for worker in report["workers"]) == pytest.approx(rows_j, rel=1e-9)
    assert sum(segment["energy_j"] for segment in report["segments"]) == pytest.approx(rows_j, rel=1e-9)
    emissions = report["emissions_g"]
    in_segments = sum(segment["emissions_g"] for segment in report["segments"])
    assert in_segments == pytest.approx(emissions["operational"], rel=1e-9)
    parts = emissions["operational"] + (emissions["embodied"] or 0) + emissions["transfer"]
    assert parts == pytest.approx(emissions["total"], rel=1e-12)
    assert report["saved_g"] == pytest.approx(report["run_now_emissions_g"] - emissions["total"])
    assert report["saved_percent"] == pytest.approx(100 * report["saved_g"] / report["run_now_emissions_g"])


def test_times_are_utc_with_z_and_a_running_segment_has_no_end():
    segments = build(cluster())["segments"]
    assert segments[0]["start"] == "2026-03-02T10:16:00Z"
    assert [segment["end"] is None for segment in segments] == [False, False, False, True]


def test_a_job_that_has_not_run_reports_nulls_and_not_zeros():
    report = build(replace(demo(), state="queued", step=0, segments=[], rows=[], intensities=[], metrics={}))
    assert report["energy_j"] == 0
    assert (report["run_now_emissions_g"], report["saved_g"], report["saved_percent"]) == (None, None, None)
    assert report["signal"] == {"provider": None, "kind": None, "coverage_percent": None, "measured_percent": None}
    assert report["pue"] == 1.2
    assert any("no training step has been metered" in note for note in report["notes"])


def test_embodied_emissions_are_null_where_the_site_gives_no_figure():
    report = build(demo())
    assert report["emissions_g"]["embodied"] is None
    assert report["emissions_g"]["total"] == report["emissions_g"]["operational"]
    assert any("Embodied" in note for note in report["notes"])


def test_estimates_and_generated_grids_say_so():
    report = build(demo())
    assert {worker["source"] for worker in report["workers"]} == {"estimated"}
    assert any("estimated" in note for note in report["notes"])
    assert any("generated" in note for note in report["notes"])
    assert not any("estimated" in note or "generated" in note for note in build(cluster())["notes"])


def test_two_zones_with_different_pue_are_weighted_by_energy():
    report = build(cluster())
    in_de, in_fr = (sum(s["energy_j"] for s in report["segments"] if s["zone"] == zone) for zone in ("DE", "FR"))
    assert report["pue"] == pytest.approx((1.2 * in_de + 1.35 * in_fr) / (in_de + in_fr))


def test_unreadable_rows_are_told():
    account = demo()
    blind: list[MeterRow] = [replace(row, energy_j=None) if row.seq % 9 == 4 else row for row in account.rows]
    report = build(replace(account, rows=blind))
    assert report["unmetered_s"] > 0
    assert report["saved_g"] is None
    assert any("not metered" in note for note in report["notes"])


def test_moves_are_told_with_their_bytes_seconds_and_joules():
    account = cluster()
    at = account.transfers[0].at
    zones = {**account.zones, "DE": replace(account.zones["DE"], transfer_j_per_byte=2e-7)}
    made = [Transfer(at, "DE", 14_000_000_000, "FR", 75.5), Transfer(at, "FR", None, "DE")]
    report = build(replace(account, zones=zones, transfers=made))
    stamp = report["moves"][0]["at"]
    first = {"at": stamp, "from": "DE", "to": "FR", "moved_bytes": 14_000_000_000, "moved_s": 75.5, "moved_j": 2800.0}
    second = {"at": stamp, "from": "FR", "to": "DE", "moved_bytes": None, "moved_s": None, "moved_j": None}
    assert report["moves"] == [first, second]


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ([], ""),
        ([(14_000_000_000, 75.5)], "1 move, 14.0 GB in 1 min 16 s"),
        ([(1_400_000, 1.24), (1_400_000, 2.0)], "2 moves, 2.80 MB in 3.24 s"),
        ([(999, None)], "1 move, 999 B"),
        ([(999, 1.0), (None, None)], "2 moves, –"),
    ],
)
def test_moves_in_words(moved, expected):
    transfers = [Transfer(cluster().at, "DE", size, "FR", taken_s) for size, taken_s in moved]
    assert moves(report_of(replace(cluster(), transfers=transfers))) == expected
