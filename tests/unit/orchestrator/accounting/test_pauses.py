"""What starts and stops took: means by part, which sum to the whole, of the segments that told.
In: segments made up. Out: nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.accounting.account import Account, SegmentFacts
from orchestrator.accounting.pauses import STOP_PARTS, starts, stops
from orchestrator.report.words import took

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
FIRST = {"imports": 6.0, "build": 2.0, "first_step": 1.0, "train": 50.0, "step_end": 0.5, "checkpoint": 1.5}
SECOND = {"imports": 4.0, "restore": 1.0, "first_step": 1.0, "train": 9.0, "step_end": 0.5, "end": 2.5, "copy": 0.2}


def account(*segments: tuple[str | None, dict[str, float]]) -> Account:
    facts = [
        replace(
            SegmentFacts(f"a-{n}", n, "DE", 1, "start", T0), ended=ended, parts_s=parts_s,
            first_step_s=parts_s.get("first_step"),
        )
        for n, (ended, parts_s) in enumerate(segments, 1)
    ]  # fmt: skip
    return Account("a", "a", "done", T0, T0, {}, ("DE",), segments=facts)


def test_parts_are_means_over_the_segments_that_told() -> None:
    facts = account(("paused", FIRST), ("window", SECOND), ("lost", {}), (None, {}))
    begun, halted = starts(facts), stops(facts)
    assert begun is not None and halted is not None
    assert (begun.count, begun.parts_s) == (2, {"imports": 5.0, "build": 1.0, "first_step": 1.0, "restore": 0.5})
    assert (begun.mean_s, halted.mean_s) == (7.5, 2.5)
    assert halted.parts_s == {"step_end": 0.5, "checkpoint": 0.75, "end": 1.25}
    assert took(begun) == "imports 5.0, first step 1.0, build 1.0, restore 0.5 s; mean of 2"


def test_a_job_that_was_never_stopped_has_no_stop() -> None:
    facts = account(("done", FIRST), ("failed", SECOND))
    assert stops(facts) is None and starts(account((None, {}))) is None


def test_small_parts_are_summed_up_as_other() -> None:
    found = starts(account(("done", {"imports": 8.0, "first_step": 0.2, "find": 0.2})))
    assert found is not None and took(found) == "imports 8.0, other 0.4 s"


@given(st.lists(st.dictionaries(st.sampled_from([*FIRST, *STOP_PARTS]), st.floats(0, 1e4), min_size=1), max_size=5))
def test_every_second_told_of_a_start_or_a_stop_is_in_a_mean(told: list[dict[str, float]]) -> None:
    facts = account(*(("paused", {**parts_s, "first_step": 1.0}) for parts_s in told))
    both = [found for found in (starts(facts), stops(facts)) if found is not None]
    whole_s = sum(s for each in facts.segments for part, s in each.parts_s.items() if part not in ("train", "copy"))
    assert sum(found.count * found.mean_s for found in both if found) <= whole_s * (1 + 1e-9)
    means_s = sum(sum(found.parts_s.values()) * found.count for found in both)
    assert means_s == pytest.approx(whole_s, rel=1e-9)
