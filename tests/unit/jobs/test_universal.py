"""Who converts which parameter: every rank finds the same answer, none is left out, no rank has much more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.universal import shares

SIZES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 10**9), min_size=1, max_size=40)


@given(sizes=SIZES, workers=st.integers(1, 8))
def test_every_parameter_is_one_ranks(sizes: dict[str, int], workers: int) -> None:
    dealt = shares(sizes, workers)
    assert len(dealt) == workers
    assert sorted(name for names in dealt for name in names) == sorted(sizes)
    assert dealt == shares(dict(reversed(sizes.items())), workers)


@given(sizes=SIZES, workers=st.integers(1, 8))
def test_no_rank_has_more_than_an_equal_part_and_one_parameter(sizes: dict[str, int], workers: int) -> None:
    loads = [sum(sizes[name] for name in names) for names in shares(sizes, workers)]
    assert max(loads) <= sum(sizes.values()) / workers + max(sizes.values())
