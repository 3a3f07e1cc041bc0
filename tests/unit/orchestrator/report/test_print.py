"""The page on paper: one sheet of A4, also with many workers, segments and notes, by a real browser's print."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.accounting.account import Account
from orchestrator.accounting.ledger import PHASES, ZoneFacts
from orchestrator.report import page, report_of
from tests.unit.orchestrator.accounting.test_worked_example import example
from tests.unit.orchestrator.report.accounts import cluster, demo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def crowded() -> Account:
    """Twenty segments of forty workers, half of them estimated, every phase and remark that a report can show."""
    account, first = cluster(), cluster().segments[0]
    segments, rows = [], []
    zones = {"DE": ZoneFacts(1.2, 26.0, 4e-5, wue_l_per_kwh=0.3, node_overhead_w=120), "FR": ZoneFacts(1.35, 26.0)}
    for n in range(20):
        begin = account.submitted_at + timedelta(hours=1.6 * n)
        name = f"s-{n}"
        end = begin + timedelta(hours=1)
        segments.append(replace(first, n=n, segment_id=name, started_at=begin, ended_at=end, gpus=40, end_step=n))
        segments[-1] = replace(segments[-1], step_parts_s=first.step_parts_s if n % 2 else {})
        for rank in range(40):
            source = "nvml-counter" if rank % 2 else "estimated"
            energy_j = 2.7e5 if (rank + n) % 7 else None
            owner = {"segment_id": name, "rank": rank, "uuid": f"GPU-{rank}", "device": f"GPU-{rank}"}
            owner |= {"phase": PHASES[rank % len(PHASES)]}
            rows.append(
                replace(account.rows[0], seq=n, start=begin, end=end, energy_j=energy_j, source=source, **owner)
            )
    known = [given for given in account.intensities if given.start.hour % 9]
    return replace(
        account, segments=segments, rows=rows, zones=zones, intensities=known, batch_size=512, generated_grid=True
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH to print with")
@pytest.mark.parametrize("make", [demo, cluster, example, crowded])
def test_a_report_prints_on_one_sheet(make, tmp_path: Path):
    (tmp_path / "report.html").write_text(page(report_of(make())), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    printing = ["--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}", str(tmp_path / "report.html")]
    subprocess.run([*command, *printing], check=True, capture_output=True, timeout=120)
    assert len(re.findall(rb"/Type\s*/Page[^s]", (tmp_path / "report.pdf").read_bytes())) == 1
