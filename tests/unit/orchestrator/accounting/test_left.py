"""What the site saved: the idle draw of the GPUs that a job left, by hand, and where it is not known."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.api import MeterRow
from orchestrator.accounting.account import Account
from orchestrator.accounting.ledger import ZoneFacts
from orchestrator.accounting.left import left_by
from orchestrator.report import as_json, page, report_of, text
from tests.unit.orchestrator.accounting.test_ledger import at, facts, intensity, row, segment


def idle(seq: int, start: float, end: float, energy_j: float | None, **more) -> MeterRow:
    given = {"job_id": None, "rank": None, "phase": "idle", "uuid": "GPU-0", **more}
    return row(seq, start, end, energy_j, more.pop("segment", None), **given)


def paused(**more) -> Account:
    """Ten minutes at 600 W, half an hour's pause, ten minutes more; the grid is cleaner in the second hour."""
    given = {
        "at": at(100),
        "state": "done",
        "zones": {"DE": ZoneFacts(pue=1.5)},
        "allowed": ("DE",),
        "segments": [
            segment(1, "DE", 40, 50, ended="paused", end_step=100, gpus=1),
            segment(2, "DE", 80, 90, ended="done", start_step=100, end_step=200, gpus=1),
        ],
        "rows": [row(1, 40, 50, 360_000.0, uuid="GPU-0"), row(2, 80, 90, 360_000.0, "j-2", uuid="GPU-0")],
        "left_rows": [idle(10, 45, 65, 72_000.0), idle(11, 65, 80, 54_000.0), idle(12, 80, 100, 99_000.0)],
        "intensities": [intensity("DE", 0, 60, 400.0), intensity("DE", 60, 180, 100.0)],
        "step": 200,
        **more,
    }
    return facts(**given)


def printed(account: Account) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(text(report_of(account)))
    return console.file.getvalue()


def test_idle_rows_in_the_pause_are_charged_by_their_own_hour():
    left = left_by(paused())
    # 60 W from minute 50 to 80: the first row counts by three quarters, and 10 of those 15 minutes are at 400 g/kWh
    assert left.energy_j == pytest.approx(54_000 + 54_000)
    assert left.emissions_g == pytest.approx(1.5 * (36_000 * 400 + 72_000 * 100) / 3.6e6)


def test_the_site_s_savings_stand_beside_the_job_s():
    report = report_of(paused())
    document = as_json(report)
    assert document["saved_g"] == pytest.approx(report.savings.saved_g)
    assert document["site_saved_g"] == pytest.approx(document["saved_g"] - report.left.emissions_g)
    assert "drew idle in its pauses, the site saved" in " ".join(
        printed(paused()).split()
    ) and "saved by the site" in printed(paused())
    assert "drew idle in its pauses, the site saved" in page(report)


def test_a_gpu_that_another_job_took_is_that_job_s():
    taken = [idle(10, 50, 60, 36_000.0), idle(11, 60, 80, 500_000.0, job_id="other", rank=0, phase="train")]
    assert left_by(paused(left_rows=taken)).energy_j == 36_000.0


@pytest.mark.parametrize(
    "rows", [[], [idle(10, 50, 79, 9.0)], [idle(10, 50, 80, None)], [idle(10, 50, 80, 9.0, uuid="GPU-7")]]
)
def test_what_no_meter_told_is_not_known_and_said(rows: list[MeterRow]):
    account = paused(left_rows=rows)
    document = as_json(report_of(account))
    assert document["saved_g"] is not None
    assert document["site_saved_g"] is None
    assert any("What the site saved is not given" in note for note in document["notes"])


def test_a_job_that_never_paused_or_held_no_gpu_left_none_idle():
    once = paused(segments=[segment(1, "DE", 40, 50, ended="done", end_step=200, gpus=1)], left_rows=[])
    assert left_by(once).emissions_g == 0
    cpus = [replace(s, gpus=0) for s in paused().segments]
    document = as_json(report_of(paused(segments=cpus, left_rows=[])))
    assert document["site_saved_g"] == document["saved_g"]


def test_a_job_that_waits_again_counts_until_now():
    waiting = paused(state="paused", segments=paused().segments[:1], rows=paused().rows[:1], at=at(65))
    assert left_by(waiting).energy_j == pytest.approx(54_000)


def test_rows_given_twice_count_once():
    account = paused()
    assert left_by(replace(account, left_rows=[*account.left_rows, *account.left_rows])) == left_by(account)


def test_an_unknown_intensity_in_the_pause_leaves_the_site_s_savings_unknown():
    gap = [intensity("DE", 0, 60, 400.0), intensity("DE", 75, 180, 100.0)]
    assert left_by(paused(intensities=gap)).emissions_g is None
