"""Joules by part of a step: shared out by time within each segment, and never more or less than phase train."""

from __future__ import annotations

from dataclasses import replace
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accounting.apportion import STEP_PARTS, apportioned
from orchestrator.accounting.ledger import add_up
from orchestrator.report import as_json, report_of
from tests.unit.orchestrator.report.accounts import demo


def told(**parts_s: float) -> dict[str, float]:
    return {part: parts_s.get(part, 0.0) for part in STEP_PARTS}


def test_the_parts_are_those_that_the_workers_tell() -> None:
    from jobs import marks

    assert STEP_PARTS == marks.STEP_PARTS


def test_each_segment_is_shared_out_by_its_own_time() -> None:
    account = demo()
    first, second = account.segments
    shares = [told(forward=1, backward=3), told(forward=1, backward=1)]
    segments = [replace(s, step_parts_s=parts_s) for s, parts_s in zip((first, second), shares, strict=True)]
    found = apportioned(replace(account, segments=segments))
    assert found is not None
    trained_j = [
        fsum(row.energy_j or 0.0 for row in account.rows if row.phase == "train" and row.segment_id == s.segment_id)
        for s in segments
    ]
    assert found.parts_j["forward"] == pytest.approx(trained_j[0] / 4 + trained_j[1] / 2)
    assert found.parts_j["data"] == 0
    assert found.unknown_j == 0


def test_what_a_segment_did_not_tell_is_unknown_and_not_guessed_from_the_others() -> None:
    account = demo()
    first, second = account.segments
    found = apportioned(
        replace(account, segments=[replace(first, step_parts_s=told(forward=1)), replace(second, step_parts_s={})])
    )
    assert found is not None
    assert found.unknown_j > 0
    assert found.energy_j == pytest.approx(add_up(account).phases["train"], rel=1e-12)


def test_where_no_segment_told_anything_there_is_no_figure() -> None:
    account = demo()
    silent = replace(account, segments=[replace(segment, step_parts_s={}) for segment in account.segments])
    assert apportioned(silent) is None
    assert as_json(report_of(silent))["train_energy_j"] is None
    assert apportioned(replace(account, rows=[])) is None


@given(
    st.lists(
        st.dictionaries(st.sampled_from(STEP_PARTS), st.floats(0, 1e6), max_size=len(STEP_PARTS)),
        min_size=2,
        max_size=2,
    )
)
def test_the_parts_sum_to_phase_train_and_leave_the_phases_alone(shares: list[dict[str, float]]) -> None:
    account = demo()
    segments = [replace(s, step_parts_s=parts_s) for s, parts_s in zip(account.segments, shares, strict=True)]
    document = as_json(report_of(replace(account, segments=segments)))
    assert fsum(document["phases"].values()) == pytest.approx(document["energy_j"], rel=1e-9)
    if document["train_energy_j"] is not None:
        assert document["train_energy_j"].pop("source") == "apportioned"
        assert fsum(document["train_energy_j"].values()) == pytest.approx(document["phases"]["train"], rel=1e-9)
    else:
        assert all(sum(parts_s.values()) == 0 for parts_s in shares)
