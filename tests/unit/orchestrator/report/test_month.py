"""A month: what lies in it is counted once, whatever the edges, and its lines add up."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.spec import InputError
from orchestrator.accounting.account import Account, Transfer
from orchestrator.accounting.ledger import ZoneFacts, add_up
from orchestrator.report.month import by_of, lines, month_of, table, total_of, within
from tests.unit.orchestrator.accounting.test_ledger import at, two_zones
from tests.unit.orchestrator.report.accounts import cluster


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


def a_job(**more) -> Account:
    zones = {"DE": ZoneFacts(1.2, 10.0, 1e-6, node_overhead_w=50, wue_l_per_kwh=0.3), "FR": ZoneFacts(1.5)}
    moves = [Transfer(at(30), "DE", 10**9)]
    return replace(two_zones(), **{"zones": zones, "transfers": moves, "project": "nlp", "user": "ada", **more})


def test_months_are_half_open_and_in_utc():
    assert month_of("2026-11") == (utc(2026, 11, 1), utc(2026, 12, 1))
    assert month_of("2026-12") == (utc(2026, 12, 1), utc(2027, 1, 1))
    for wrong in ("2026-13", "november", "2026-11-01", ""):
        with pytest.raises(InputError, match="--month"):
            month_of(wrong)
    with pytest.raises(InputError, match="--by: 'team' is unknown; choose from project, user, zone"):
        by_of("team")


@pytest.mark.parametrize("by", ["project", "user", "zone"])
def test_a_month_that_holds_a_job_has_its_report(by):
    account = a_job()
    whole, found = add_up(account), lines([account], *month_of("2026-03"), by)
    document = total_of(found).to_json()
    assert document["energy_j"] == pytest.approx(whole.total.energy_j)
    assert document["emissions_g"] == pytest.approx(whole.emissions_g)
    assert document["overhead_g"] == pytest.approx(whole.overhead.operational_g)
    assert document["transfer_g"] == pytest.approx(whole.transfer_g)
    assert document["embodied_g"] == pytest.approx(whole.embodied_g)
    assert document["water_l"] == pytest.approx(whole.water_l)
    assert document["coverage_percent"] == pytest.approx(whole.coverage_percent)
    assert [line.name for line in found] == {"project": ["nlp"], "user": ["ada"], "zone": ["DE", "FR"]}[by]


@given(st.lists(st.integers(1, 239), max_size=4, unique=True))
def test_months_that_follow_each_other_count_everything_once(cuts: list[int]):
    account = a_job()
    edges = [at(-10_000), *(at(cut) for cut in sorted(cuts)), at(10_000)]
    parts = [add_up(within(account, a, b)) for a, b in zip(edges, edges[1:], strict=False)]
    whole = add_up(account)
    assert sum(part.total.energy_j for part in parts) == pytest.approx(whole.total.energy_j, rel=1e-9)
    assert sum(part.total.operational_g for part in parts) == pytest.approx(whole.total.operational_g, rel=1e-9)
    assert sum(part.embodied_g or 0 for part in parts) == pytest.approx(whole.embodied_g, rel=1e-9)
    assert sum(part.transfer_g or 0 for part in parts) == pytest.approx(whole.transfer_g, rel=1e-9)
    assert sum(part.overhead.operational_g for part in parts if part.overhead) == pytest.approx(
        whole.overhead.operational_g, rel=1e-9
    )


def test_a_running_job_counts_until_now_and_in_the_next_month_not():
    account = cluster()
    march = total_of(lines([account], *month_of("2026-03"), "zone")).to_json()
    assert march["energy_j"] == pytest.approx(add_up(account).total.energy_j)
    assert march["emissions_g"] == pytest.approx(add_up(account).emissions_g)
    assert lines([account], *month_of("2026-04"), "zone") == []


def test_projects_and_users_group_jobs_and_those_without_come_last():
    jobs = [a_job(), replace(a_job(), user="bob"), a_job(project=None)]
    found = lines(jobs, *month_of("2026-03"), "project")
    assert [(line.name, len(line.ledgers)) for line in found] == [("nlp", 4), (None, 2)]
    assert [line.name for line in lines(jobs, *month_of("2026-03"), "user")] == ["ada", "bob"]


def test_the_table_has_a_line_for_each_and_the_sum():
    console = Console(file=io.StringIO(), width=100)
    found = lines([a_job()], *month_of("2026-03"), "zone")
    console.print(table("2026-03", "zone", found, 3.6e6))
    said = console.file.getvalue()
    assert all(word in said for word in ("2026-03 by zone", "DE", "FR", "total", "1.00 kWh"))


def test_a_move_whose_zone_held_no_segment_that_month_is_still_charged():
    late = a_job(transfers=[Transfer(at(100), "DE", 10**9)])
    part = within(late, at(90), at(200))
    assert part.segments and all(segment.zone == "FR" for segment in part.segments)
    found = lines([late], at(90), at(200), "zone")
    assert [line.name for line in found] == ["DE", "FR"]
