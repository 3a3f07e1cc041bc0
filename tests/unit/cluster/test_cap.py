"""What the ranks of a segment say of their power limits becomes the segment's.
In: ranks' words to a Control. Out: views of the segment, and its cap.
The metered integration tests send them through a real Ray.
"""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from cluster.api import Desire, Progress
from cluster.cap import together
from cluster.control import Control
from cluster.meter.limit import Cap

AT = datetime(2026, 3, 1, 6, 30, tzinfo=timezone.utc)
DESIRE = Desire(AT, "expired", 3)


@pytest.mark.parametrize(
    ("caps", "ranks", "cap"),
    [
        ({0: Cap(300), 1: Cap(300)}, 2, Cap(300)),
        ({0: Cap(300)}, 2, Cap(None)),
        ({0: Cap(300), 1: Cap(None, "why")}, 2, Cap(None, "rank 1: why")),
        ({0: Cap(300), 1: Cap(400, "shared")}, 2, Cap(None, "rank 1: shared")),
        ({0: Cap(400, "shared")}, 1, Cap(400, "rank 0: shared")),
        ({}, 0, Cap(None)),
    ],
)
def test_a_limit_holds_where_it_holds_on_every_rank(caps: dict[int, Cap], ranks: int, cap: Cap) -> None:
    assert together(caps, ranks) == cap


def test_progress_says_the_limit_once_all_ranks_told_and_a_refusal_at_once() -> None:
    control = Control()
    control.desire("tiny-1", DESIRE)
    control.exchange("tiny-1", DESIRE, Progress(AT, "train", 1, 10, None, 1, 0.5))
    seen = []
    for rank, cap in ((0, Cap(300)), (1, Cap(300)), (1, Cap(None, "others came"))):
        control.limited("tiny-1", DESIRE, rank, 2, cap)
        progress = control.views(["tiny-1"])["tiny-1"].progress
        assert progress is not None
        seen.append((progress.power_limit_w, progress.power_limit_refused))
    assert seen == [(None, None), (300, None), (None, "rank 1: others came")]
    assert control.cap("tiny-1") == Cap(None, "rank 1: others came")
    assert control.cap("never heard of") == Cap(None)


@pytest.mark.parametrize(
    ("caps", "refused"),
    [([Cap(300), Cap(300)], False), ([Cap(300), Cap(None, "why")], True), ([Cap(300), Cap(400, "shared")], False)],
)
def test_a_refusal_on_one_host_is_known_to_the_ranks_on_others(caps: list[Cap], refused: bool) -> None:
    control = Control()
    for rank, cap in enumerate(caps):
        control.limited("tiny-1", DESIRE, rank, 2, cap)
    assert control.refused("tiny-1") is refused
