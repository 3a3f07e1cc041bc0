"""Revisions, marginal grams and joules by sample: by hand, and null where something is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.accounting.account import Account, Intensity
from orchestrator.accounting.efficiency import efficiency_of
from orchestrator.accounting.ledger import ZoneFacts
from orchestrator.accounting.revision import forecast_h, marginal_g, revised_g
from orchestrator.report import as_json, report_of
from tests.unit.orchestrator.accounting.test_ledger import T0, facts, intensity, row, segment


def said(start: float, end: float, value: float | None, kind: str, minutes: int, **more) -> Intensity:
    return intensity("DE", start, end, value, kind, fetched_at=T0 + timedelta(minutes=minutes), **more)


def two_hours(*intensities: Intensity, **more) -> Account:
    """1 kWh in each of two hours, PUE 1.2."""
    given = {
        "zones": {"DE": ZoneFacts(pue=1.2, charged_by=("em", "uk"))},
        "allowed": ("DE",),
        "segments": [segment(1, "DE", 0, 120, end_step=50)],
        "rows": [row(1, 0, 60, 3.6e6), row(2, 60, 120, 3.6e6)],
        "intensities": intensities,
        **more,
    }
    return facts(**given)


FORECAST = said(0, 120, 200.0, "forecast", 0)
ESTIMATED = said(0, 60, 240.0, "estimated", 70)
MEASURED = said(0, 60, 250.0, "measured", 90)


def test_a_revision_says_how_far_it_moved_the_grams_since_they_were_first_known():
    assert revised_g(two_hours(FORECAST)) == pytest.approx(0)
    assert revised_g(two_hours(FORECAST, ESTIMATED)) == pytest.approx(1.2 * 40)
    assert revised_g(two_hours(MEASURED, FORECAST, ESTIMATED)) == pytest.approx(1.2 * 50)
    again = said(0, 60, 230.0, "measured", 200)
    assert revised_g(two_hours(MEASURED, FORECAST, again)) == pytest.approx(1.2 * 30)
    assert as_json(report_of(two_hours(FORECAST, MEASURED)))["revised_g"] == pytest.approx(60)


def test_a_slot_that_became_known_later_is_no_revision():
    empty = said(0, 120, None, "forecast", 0)
    assert revised_g(two_hours(empty, MEASURED)) == pytest.approx(0)
    assert revised_g(two_hours()) is None


def test_the_first_choice_s_first_word_counts_though_another_spoke_before():
    other = said(0, 120, 900.0, "forecast", -60, provider="uk")
    own = [replace(given, provider="em") for given in (FORECAST, MEASURED)]
    assert revised_g(two_hours(other, *own)) == pytest.approx(1.2 * 50)


def test_marginal_grams_stand_beside_only_where_they_are_known_for_all():
    marginal = [
        said(0, 60, 500.0, "measured", 5, signal="marginal"),
        said(60, 120, 700.0, "forecast", 5, signal="marginal"),
    ]
    account = two_hours(FORECAST, marginal=marginal)
    assert marginal_g(account) == pytest.approx(1.2 * 1200)
    document = as_json(report_of(account))
    assert document["marginal_emissions_g"] == pytest.approx(1440)
    assert document["emissions_g"]["operational"] == pytest.approx(480)
    assert marginal_g(two_hours(FORECAST, marginal=marginal[:1])) is None
    assert marginal_g(two_hours(FORECAST)) is None
    assert marginal_g(two_hours(*marginal)) == pytest.approx(1440)


def test_uncertainty_is_carried():
    account = two_hours(FORECAST, MEASURED)
    assert forecast_h(account) == pytest.approx(1.0 + 0)
    rows = [row(1, 0, 60, 3.6e6, source="estimated"), row(2, 60, 90, 1.2e6), row(3, 90, 120, None)]
    uncertainty = as_json(report_of(replace(account, rows=rows)))["uncertainty"]
    assert uncertainty["estimated_percent"] == pytest.approx(75)
    assert uncertainty["forecast_percent"] == pytest.approx(25)
    assert uncertainty["unmetered_percent"] == pytest.approx(25)
    silent = as_json(report_of(replace(account, rows=[], segments=[])))["uncertainty"]
    assert silent == {
        "estimated_percent": None, "forecast_percent": None, "forecast_h": 0.0, "unmetered_percent": None,
    }  # fmt: skip


def test_joules_by_sample_and_token_are_those_of_training_alone():
    rows = [row(1, 0, 10, 999.0, phase="start"), row(2, 10, 60, 3.2e6), row(3, 60, 120, 3.2e6, rank=-1)]
    account = two_hours(FORECAST, rows=rows, batch_size=64, sequence_length=256)
    found = efficiency_of(account)
    assert found is not None
    assert found.per_sample_j == pytest.approx(6.4e6 / (50 * 64))
    assert found.per_token_j == pytest.approx(6.4e6 / (50 * 64 * 256))
    assert found.samples_per_j == pytest.approx(50 * 64 / 6.4e6)
    document = as_json(report_of(account))
    assert (document["per_sample_j"], document["per_token_j"]) == (found.per_sample_j, found.per_token_j)


def test_joules_by_sample_are_null_where_a_part_is_missing():
    whole = two_hours(FORECAST, batch_size=64, sequence_length=256)
    assert efficiency_of(whole) is not None
    assert efficiency_of(replace(whole, batch_size=None)) is None
    assert efficiency_of(replace(whole, rows=[row(1, 0, 60, 3.6e6), row(2, 60, 120, None)])) is None
    assert efficiency_of(replace(whole, segments=[segment(1, "DE", 0, 120)])) is None
    without = efficiency_of(replace(whole, sequence_length=None))
    assert without is not None and without.per_token_j is None
