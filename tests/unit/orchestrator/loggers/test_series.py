"""A job's course by time: its sums are the report's, its points do not change as more come, unknown is not zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loggers import run_of
from orchestrator.loggers.series import LAG
from orchestrator.report import report_of
from tests.unit.orchestrator.loggers.runs import EVERY_S, account, ended, running
from tests.unit.orchestrator.report.accounts import T0, cluster, demo

DEMO, CLUSTER = (report_of(replace(make(), state="done")) for make in (demo, cluster))


@given(every_s=st.floats(2, 400))
def test_the_last_point_has_the_report_s_joules_and_grams(every_s: float):
    last = run_of(DEMO, every_s).points[-1]
    assert last.energy_j == pytest.approx(DEMO.ledger.total.energy_j, rel=1e-9)
    assert last.emissions_g == pytest.approx(DEMO.ledger.total.emissions_g, rel=1e-9)


def test_grams_are_each_zone_s_own_and_sum_to_the_report_s():
    report, last = CLUSTER, run_of(CLUSTER, 1800).points[-1]
    assert last.energy_j == pytest.approx(report.ledger.total.energy_j, rel=1e-9)
    assert last.emissions_g == pytest.approx(report.ledger.total.emissions_g, rel=1e-9)


def test_watts_times_time_are_the_joules():
    points = ended().points
    assert sum((point.power_w or 0.0) * EVERY_S for point in points) == pytest.approx(points[-1].energy_j)


def test_points_stand_at_the_ends_of_stretches_in_order_and_sums_only_grow():
    points = ended().points
    assert all(point.at.timestamp() % EVERY_S == 0 for point in points)
    for before, after in zip(points, points[1:], strict=False):
        assert before.at < after.at
        assert before.energy_j <= after.energy_j
        assert (before.emissions_g or 0.0) <= (after.emissions_g or 0.0)
        assert before.step <= after.step


def test_what_was_told_while_it_ran_stands_at_the_end():
    early, late = running().points, ended().points
    assert 0 < len(early) < len(late)
    assert late[: len(early)] == early
    assert early[-1].at <= T0 + timedelta(seconds=200) - LAG
    assert running().figures == {} and ended().figures["energy_j"] == pytest.approx(late[-1].energy_j)


def test_the_loss_stands_where_it_was_told_with_its_step():
    told = [(point.step, point.loss) for point in ended().points if point.loss is not None]
    assert told == [(each.step, each.loss) for each in account().losses]


def test_the_intensity_is_that_of_the_zone_where_the_job_is():
    run = run_of(CLUSTER, 3600)
    in_de, in_fr = (segment.started_at for segment in cluster().segments[1:3])
    by_time = {point.at: point.g_per_kwh for point in run.points}
    curve = {(said.zone, said.end): said.g_per_kwh for said in cluster().intensities}
    for zone, start in (("DE", in_de), ("FR", in_fr)):
        at = start.replace(minute=0, second=0) + timedelta(hours=2)
        assert by_time[at] == pytest.approx(curve[zone, at])


def test_unknown_is_absent_and_not_zero():
    blind = replace(account(), rows=[replace(row, energy_j=None) for row in account().rows], intensities=[])
    points = run_of(report_of(blind), EVERY_S).points
    assert points, "its losses are known"
    assert all(set(point.values()) == {"loss", "energy_j"} for point in points)
    without = run_of(report_of(replace(account(), intensities=[])), EVERY_S).points
    assert all(
        "emissions_g" not in point.values() and "power_w" in point.values() for point in without if not point.loss
    )


def test_a_job_that_has_not_run_has_no_points():
    waiting = replace(demo(), state="queued", segments=[], rows=[], metrics={})
    assert run_of(report_of(waiting), 60.0).points == ()
