"""What people see of a report: the terminal's text, the picture and the page.
In: the accounts beside it. Out: files in a temporary folder.
Nothing follows; looks are judged by eye.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.accounting.account import Account
from orchestrator.accounting.ledger import add_up
from orchestrator.report import draw, page, report_of, svg, text
from orchestrator.report.page import bars
from orchestrator.report.power import STEPS_AT_MOST, power_of
from orchestrator.report.words import energy, figures, flop, grams, length, percent, sentence
from tests.unit.orchestrator.report.accounts import cluster, demo


def queued() -> Account:
    return replace(demo(), state="queued", step=0, segments=[], rows=[], intensities=[], planned=[])


def blind() -> Account:
    account = demo()
    return replace(account, rows=[replace(row, energy_j=None) for row in account.rows], intensities=[])


ACCOUNTS = pytest.mark.parametrize("make", [demo, cluster, queued, blind])


def printed(account: Account, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(text(report_of(account)))
    return console.file.getvalue()


@ACCOUNTS
def test_the_picture_is_a_png_of_some_size(make, tmp_path: Path):
    draw(report_of(make()), tmp_path / "job.png")
    written = (tmp_path / "job.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert len(written) > 20_000


@ACCOUNTS
def test_the_page_is_well_formed_and_asks_for_nothing_from_outside(make):
    written = page(report_of(make()))
    HTMLParser().feed(written)
    assert "http:" not in written and "https:" not in written
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", written)
    assert written.count("<svg") == 1
    assert written.rstrip().endswith("</html>")


def test_the_svg_takes_the_page_s_colours_and_keeps_text_as_text():
    drawn = svg(report_of(demo()))
    assert "var(--ink" in drawn and "var(--zone-0" in drawn
    assert "run-now: DEMO ×2" in drawn
    assert "power, W (estimated)" in drawn


def test_a_picture_file_can_be_svg_too(tmp_path: Path):
    draw(report_of(demo()), tmp_path / "job.svg")
    assert "<svg" in (tmp_path / "job.svg").read_text(encoding="utf-8")


def test_the_picture_file_has_the_joules_by_phase_with_the_parts_of_training(tmp_path: Path):
    draw(report_of(demo()), tmp_path / "job.svg")
    drawn = (tmp_path / "job.svg").read_text(encoding="utf-8")
    for word in ("energy by phase (estimated)", ">forward<", ">backward<", "its parts apportioned by time"):
        assert word in drawn
    silent = replace(demo(), segments=[replace(segment, step_parts_s={}) for segment in demo().segments])
    draw(report_of(silent), tmp_path / "silent.svg")
    assert "apportioned" not in (tmp_path / "silent.svg").read_text(encoding="utf-8")
    assert "energy by phase" not in svg(report_of(demo())), "the page has bars of its own"


def test_the_text_says_what_was_saved_and_instead_of_what():
    said = printed(demo())
    assert re.search(r"41 % less than run-now \(279 mg instead of 470 mg\)", said)
    assert "estimated" in said and "generated" in said


def test_a_true_loss_is_shown_as_plainly_as_a_gain():
    assert sentence(report_of(cluster())).startswith("95 % more than run-now")
    assert "-95 %" in printed(cluster())
    assert "95 % more than run-now" in page(report_of(cluster()))


@ACCOUNTS
def test_the_text_fits_a_terminal_of_eighty_columns(make):
    said = printed(make(), width=80)
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_estimates_are_labelled_on_the_page():
    written = page(report_of(demo()))
    assert "energy estimated" in written and "generated grid" in written
    assert '<small class="estimated">estimated</small>' in written
    assert "energy estimated" not in page(report_of(cluster()))


def test_the_parts_of_a_step_stand_under_train_and_say_that_they_are_apportioned():
    said = printed(demo())
    train, data, forward = (said.index(word) for word in ("\ntrain ", "\n  data ", "\n  forward "))
    assert train < data < forward < said.index("\ncheckpoint ")
    assert "apportioned by time" in said
    written = page(report_of(demo()))
    assert written.count('<small class="apportioned">apportioned by time</small>') == 1
    assert written.index("<span>train</span>") < written.index("<span>backward") < written.index("<span>checkpoint")


def test_a_segment_that_runs_shows_its_training_as_not_known():
    assert "\n  not known " in printed(cluster())
    assert "not known" not in printed(demo())


def test_memory_and_shares_of_one_reading_are_told_apart_from_what_is_read():
    rows = list(demo().rows)
    rows.append(replace(rows[0], device="dram", source="rapl", seq=99))
    rows.append(replace(rows[0], device="gpu0", uuid="MIG-1", source="apportioned", seq=98))
    account = replace(demo(), rows=rows)
    said, written = printed(account), page(report_of(account))
    assert re.search(r"0 +node-demo +memory +rapl ", said)
    assert re.search(r"0 +node-demo +MIG-1 +apportioned ", said)
    assert "rank 0, memory" in written
    assert '<small class="apportioned">apportioned</small>' in written
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", no_color=False)
    console.print(text(report_of(account)))
    assert "\x1b[36mapportioned" in console.file.getvalue() and "\x1b[33mestimated" in console.file.getvalue()


def test_work_by_joule_is_shown_where_the_model_s_flops_are_known():
    said = printed(cluster())
    assert re.search(r"work +\S+ [MGT]FLOP/J +the model's 7.20 GFLOP a token", said)
    assert "FLOP" not in printed(demo())


def test_many_workers_are_shown_by_rank_and_keep_their_joules():
    few, many = add_up(demo()), add_up(cluster())
    assert len(bars(few)) == len(few.workers)
    assert [bar.name for bar in bars(many)] == [f"rank {rank}" for rank in range(8)]
    wide = replace(cluster(), rows=[replace(r, rank=r.seq % 40, device=f"g{r.seq % 40}") for r in cluster().rows])
    assert (len(bars(add_up(wide))), bars(add_up(wide))[-1].name) == (10, "31 more")
    for ledger in (few, many, add_up(wide)):
        assert sum(bar.energy_j for bar in bars(ledger)) == pytest.approx(ledger.total.energy_j)


def test_the_page_draws_the_grams_beside_those_of_run_now():
    less, more = page(report_of(demo())), page(report_of(cluster()))
    assert less.index('<div class="row less"><span>this job') < less.index(
        '<div class="row now"><span>run-now, DEMO ×2'
    )
    assert '<div class="row more"><span>this job' in more
    assert re.search(r'run-now, DEMO ×2</span><span class="track"><i style="width: 100.0%">', less)
    assert "CO₂e against run-now" not in page(report_of(blind()))


def test_a_job_of_many_segments_says_how_many_are_not_shown():
    first = demo().segments[0]
    segments = [replace(first, n=n, segment_id=f"s-{n}") for n in range(1, 21)]
    assert "12 earlier ones are in" in page(report_of(replace(demo(), segments=segments)))


def test_names_are_escaped_on_the_page():
    written = page(report_of(replace(demo(), name="<b>&", metrics={})))
    assert "<b>&" not in written
    assert "&lt;b&gt;&amp;" in written


def test_nothing_metered_is_said_and_not_shown_as_zero_grams():
    said = printed(blind())
    assert "its energy could not be metered" in said
    assert "were not metered" in said


def test_power_keeps_the_joules_whatever_the_resolution():
    rows = cluster().rows
    power = power_of(rows)
    assert len(power.times) == STEPS_AT_MOST + 1
    lengths_s = [(b - a) / timedelta(seconds=1) for a, b in zip(power.times, power.times[1:], strict=False)]
    drawn_j = sum(sum(w * s for w, s in zip(watts, lengths_s, strict=False)) for watts in power.watts.values())
    assert drawn_j == pytest.approx(add_up(cluster()).total.energy_j, rel=1e-6)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (energy(0), "0 J"),
        (energy(812.4), "812 J"),
        (energy(4030), "4.03 kJ"),
        (energy(36_000), "10.0 Wh"),
        (energy(36e6), "10.0 kWh"),
        (energy(36e9), "10.0 MWh"),
        (energy(None), "–"),
        (grams(0), "0 g"),
        (grams(0.0279), "27.9 mg"),
        (grams(12.34), "12.3 g"),
        (grams(-1234), "-1.23 kg"),
        (grams(2.5e6), "2.50 t"),
        (flop(0), "0 FLOP"),
        (flop(6_196_608), "6.20 MFLOP"),
        (flop(7.2e12), "7.20 TFLOP"),
        (flop(None), "–"),
        (percent(0), "0 %"),
        (percent(0.01), "<0.1 %"),
        (percent(3.04), "3.0 %"),
        (percent(38.4), "38 %"),
        (percent(99.97), "99.9 %"),
        (percent(100.0), "100 %"),
        (percent(None), "–"),
        (length(42), "42 s"),
        (length(192), "3 min 12 s"),
        (length(18_180), "5 h 03 min"),
        (length(187_200), "2 d 04 h"),
        (figures(999.6), "1\u202f000"),
        (figures(12_345), "12\u202f300"),
    ],
)
def test_figures_read_well(shown: str, expected: str):
    assert shown == expected
