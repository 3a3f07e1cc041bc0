"""Whether a segment's workers have their place: of all placement groups of a cluster, those of its own Ray job."""

from __future__ import annotations

from datetime import datetime, timezone

from cluster.placing import note, states_of

OWN, OTHER = "04000000", "05000000"


def group(state: str) -> dict[str, object]:
    return {"state": state, "bundles": {0: {"CPU": 1.0}}}


def test_only_groups_of_the_own_ray_job_count_and_none_that_is_gone() -> None:
    groups = {
        f"{'a' * 28}{OWN}": group("PENDING"),
        f"{'b' * 28}{OWN}": group("REMOVED"),
        f"{'c' * 28}{OTHER}": group("CREATED"),
    }
    assert states_of(groups, OWN) == ["PENDING"]
    assert states_of(groups, "06000000") == []


def test_the_note_names_the_segment_and_since_when_it_waits() -> None:
    since = datetime(2026, 3, 1, 12, 0, 5, tzinfo=timezone.utc)
    assert note("tiny-3", since).startswith("segment tiny-3 waits for its workers' place since 2026-03-01T12:00:05Z")
