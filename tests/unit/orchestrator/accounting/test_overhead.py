"""Nodes' overhead, water and transfer: charged once, shared by time, and said where a figure is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accounting.account import Account, Beside, Neighbour, Transfer
from orchestrator.accounting.ledger import ZoneFacts, add_up
from orchestrator.accounting.overhead import stays_of
from orchestrator.accounting.run_now import savings
from orchestrator.report import build
from tests.unit.orchestrator.accounting.test_ledger import at, facts, intensity, row, segment, two_zones

ZONE = ZoneFacts(pue=1.2, node_overhead_w=100.0, wue_l_per_kwh=0.5)


def an_hour(**more) -> Account:
    """One job on one node for an hour at 360 W."""
    given = {
        "zones": {"DE": ZONE},
        "allowed": ("DE",),
        "at": at(60),
        "segments": [segment(1, "DE", 0, 60, ended="done", end_step=100)],
        "rows": [row(1, 0, 60, 1.296e6)],
        "intensities": [intensity("DE", 0, 120, 400.0)],
        "step": 100,
        **more,
    }
    return facts(**given)


def test_a_job_alone_on_a_node_carries_all_of_its_overhead_beside_its_rows():
    ledger = add_up(an_hour())
    assert ledger.total.energy_j == 1.296e6
    assert ledger.overhead is not None
    assert ledger.overhead.energy_j == pytest.approx(360_000)  # 100 W for an hour
    assert ledger.overhead.operational_g == pytest.approx(0.1 * 1.2 * 400)
    assert ledger.emissions_g == pytest.approx((0.36 + 0.1) * 1.2 * 400)
    assert ledger.water_l == pytest.approx((0.36 + 0.1) * 0.5)


def test_two_jobs_on_a_node_share_the_time_that_both_are_there():
    shared = an_hour(neighbours=[Neighbour("boot", "other", at(30), at(90)), Neighbour("far", "other", at(0), at(60))])
    ledger = add_up(shared)
    assert ledger.overhead is not None
    assert ledger.overhead.energy_j == pytest.approx(100 * (1800 + 1800 / 2))


def test_run_now_has_the_same_nodes():
    result = savings(an_hour(), add_up(an_hour()))
    assert result.run_now is not None
    assert result.run_now.overhead_g == pytest.approx(48.0)
    assert result.saved_g == pytest.approx(0.0, abs=1e-9)


def test_a_node_s_overhead_goes_as_its_joules_go():
    beside = [Beside("boot", "other", at(30), 0.9 * 1.296e6), Beside("boot", None, at(30), 0.3 * 1.296e6)]
    rows = [row(1, 0, 30, 0.5 * 1.296e6), replace(row(1, 30, 60, 0.3 * 1.296e6), seq=2)]
    others = [Neighbour("boot", "other", at(30), at(90))]
    ledger = add_up(an_hour(rows=rows, neighbours=others, beside=beside))
    assert ledger.overhead is not None
    assert ledger.overhead.energy_j == pytest.approx(100 * (1800 + 1800 * 0.3 / 1.5))
    silent = add_up(an_hour(rows=rows, neighbours=others, beside=[beside[1]]))
    assert silent.overhead is not None
    assert silent.overhead.energy_j == pytest.approx(100 * (1800 + 1800 / 2)), (
        "one without a reading counts as the rest"
    )


def test_what_of_a_node_nobody_holds_is_the_sites():
    ledger = add_up(an_hour(beside=[Beside("boot", None, at(0), 3 * 1.296e6)]))
    assert ledger.overhead is not None
    assert ledger.overhead.energy_j == pytest.approx(360_000 / 4)


@given(
    st.lists(st.tuples(st.sampled_from(["n1", "n2"]), st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=6),
    st.booleans(),
)
def test_the_jobs_on_a_node_carry_its_overhead_together_and_once(stays: list[tuple[str, int, int]], metered: bool):
    every = [Neighbour(host, f"j{i}", at(start), at(start + length)) for i, (host, start, length) in enumerate(stays)]
    drawn = [
        Beside(host, f"j{i}", at(minute), float(1 + (7 * i + minute) % 5))
        for i, (host, start, length) in enumerate(stays)
        for minute in range(start, start + length)
    ]
    carried_s = 0.0
    for i, own in enumerate(every):
        whose = f"{own.job_id}"
        start, length = stays[i][1], stays[i][2]
        account = an_hour(
            segments=[replace(segment(1, "DE", start, start + length), segment_id=f"{whose}-1")],
            rows=[
                replace(
                    row(n, 0, 1, each.energy_j, f"{whose}-1", job_id=whose),
                    host_boot=own.host_boot,
                    start=each.start,
                    end=each.start + timedelta(minutes=1),
                )
                for n, each in enumerate(drawn)
                if each.job_id == whose
            ],
            neighbours=every,
            beside=[each for each in drawn if each.job_id != whose] if metered else (),
        )
        account = replace(account, job_id=whose)
        carried_s += sum(stay.node_s for stay in stays_of(account))
    held_s = 60 * sum(
        any(n.host_boot == host and n.start <= at(minute) < n.end for n in every)
        for host in ("n1", "n2")
        for minute in range(101)
    )
    assert carried_s == pytest.approx(held_s, rel=1e-9)


def test_what_no_zone_gives_is_null_and_what_one_zone_leaves_out_is_told():
    silent = build(two_zones())
    assert (silent["overhead_j"], silent["water_l"], silent["emissions_g"]["overhead"]) == (None, None, None)
    half = build(replace(two_zones(), zones={"DE": ZONE, "FR": ZoneFacts(1.5)}))
    assert half["overhead_j"] == pytest.approx(360_000)
    assert any("overhead leaves out FR" in note for note in half["notes"])
    assert any("Water leaves out FR" in note for note in half["notes"])


def test_a_move_of_unknown_size_has_unknown_grams():
    zones = {"DE": ZoneFacts(transfer_j_per_byte=1e-6), "FR": ZoneFacts()}
    assert add_up(replace(two_zones(), zones=zones, transfers=[Transfer(at(30), "DE", None)])).transfer_g is None
    moved = add_up(replace(two_zones(), zones=zones, transfers=[Transfer(at(30), "DE", 3_600_000_000)]))
    assert moved.transfer_g == pytest.approx(0.001 * 100)
