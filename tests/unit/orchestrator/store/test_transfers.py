"""Moves are charged once, by what was moved, to the zone that it left."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from orchestrator.accounting.account import Transfer
from orchestrator.store.accounts import transfers_of
from orchestrator.store.schema import Segment
from tests.unit.orchestrator.specs import PLACES

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)
S3, FR, GB = "s3://de/job", "/fr/job", "/gb/job"


def segments(*told: tuple[str, str, int | None, str | None]) -> list[Segment]:
    """(zone, ended, moved bytes, moved from) of each; a checkpoint has 1,000 bytes, a move takes 2 s."""
    made = []
    for n, (zone, ended, moved_bytes, moved_from) in enumerate(told):
        knows = moved_bytes is not None
        made.append(
            Segment(
                id=f"job-{n}",
                job_id="job",
                n=n,
                zone=zone,
                ordered_at=T0 + timedelta(hours=n),
                ended=ended,
                restore_from="somewhere" if n and zone != told[n - 1][0] else None,
                moved_bytes=moved_bytes,
                moved_from=moved_from,
                checkpoint_bytes=1000 if knows else None,
                parts_s={"transfer": 2.0} if moved_bytes else {},
            )
        )
    return made


def move(n: int, left: str, moved_bytes: int | None, to: str, duration_s: float | None = 2.0) -> Transfer:
    return Transfer(T0 + timedelta(hours=n), left, moved_bytes, to, duration_s)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([("DE", "paused", 0, None), ("DE", "done", 0, None)], []),
        ([("DE", "moved", 0, None), ("FR", "done", 700, S3)], [move(1, "DE", 700, "FR")]),
        # The folder or URL of its own zone: the node was new, nothing left the zone.
        ([("DE", "paused", 0, None), ("DE", "done", 700, S3)], []),
        # Two zones that share a bucket: it left the one that had sent it.
        ([("DE", "moved", 0, None), ("PL", "paused", 700, S3), ("PL", "done", 700, S3)], [move(1, "DE", 700, "PL")]),
        # There and back.
        (
            [("FR", "moved", 0, None), ("GB", "moved", 900, FR), ("FR", "done", 800, GB)],
            [move(1, "FR", 900, "GB"), move(2, "GB", 800, "FR")],
        ),
        # A lost segment had brought it, for the next one finds it there.
        (
            [("DE", "moved", 0, None), ("FR", "lost", None, None), ("FR", "done", 0, None)],
            [move(1, "DE", 1000, "FR", None)],
        ),
        # It had not, for the next one brings it.
        (
            [("DE", "moved", 0, None), ("FR", "lost", None, None), ("FR", "done", 700, S3)],
            [move(2, "DE", 700, "FR")],
        ),
        # Nobody can tell: the size of the checkpoint stands.
        ([("DE", "moved", 0, None), ("FR", "lost", None, None)], [move(1, "DE", 1000, "FR", None)]),
        # What a lost segment had saved was brought back.
        (
            [("DE", "moved", 0, None), ("FR", "lost", None, None), ("DE", "done", 600, FR)],
            [move(1, "DE", 1000, "FR", None), move(2, "FR", 600, "DE")],
        ),
    ],
)
def test_each_move_is_charged_once_to_the_zone_that_it_left(
    told: list[tuple[str, str, int | None, str | None]], expected: list[Transfer]
) -> None:
    assert transfers_of(segments(*told), PLACES) == expected
