"""How many jobs stand: who is shown, in which order, and when each changes next.
In: jobs in a store. Out: pass or fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobs.spec import iso
from orchestrator.site import Site
from orchestrator.status import ENDED_SHOWN, status, status_of_all
from orchestrator.store import Store, jobs
from orchestrator.store.schema import Job
from tests.unit.orchestrator.specs import tiny
from tests.unit.orchestrator.store.test_accounts import HOUR, T0, _segment

SITE = Site.model_validate({"zones": {"DE": {"provider": "demo"}}})
MINUTE = timedelta(minutes=1)
ENDED = ENDED_SHOWN + 5


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Jobs of a minute each, the last two of which have not ended: one runs, one waits."""
    opened = Store(database)
    with opened.write() as session:
        for n in range(ENDED + 2):
            job = jobs.submit(session, tiny(), T0 + n * MINUTE)
            if n < ENDED:
                job.state, job.ended_at = "done", T0 + (n + 1) * MINUTE
        session.add(_segment(f"tiny-{ENDED + 1}"))
    yield opened
    opened.close()


def test_the_newest_that_ended_are_shown_with_all_that_have_not(store: Store) -> None:
    with store.read() as session:
        found, left_out = status_of_all(session, SITE, T0 + HOUR)
        whole, none = status_of_all(session, SITE, T0 + HOUR, None)
    names = [f"tiny-{n}" if n > 1 else "tiny" for n in range(1, ENDED + 3)]
    assert ([job["job"] for job in whole], none) == (names, 0)
    assert ([job["job"] for job in found], left_out) == (names[5:], 5)
    assert [job["zone"] for job in found[-2:]] == ["DE", None]
    assert [job["workers"] for job in found[-2:]] == [1, 0]
    with store.read() as session:
        assert status(session, SITE, session.get_one(Job, names[-1]), T0 + HOUR) == found[-1]


def test_what_ended_last_is_shown_whenever_it_was_submitted(store: Store) -> None:
    with store.write() as session:
        session.get_one(Job, "tiny").ended_at = T0 + 9 * HOUR
    with store.read() as session:
        assert status_of_all(session, SITE, T0 + 9 * HOUR)[0][0]["job"] == "tiny"


@pytest.mark.parametrize(
    ("minutes", "back_off", "changes"), [(0, None, 10), (15, None, 40), (45, None, None), (0, 5, 5), (20, 5, 40)]
)
def test_a_job_changes_next_at_an_edge_of_its_plan_or_when_its_back_off_ends(
    store: Store, minutes: int, back_off: int | None, changes: int | None
) -> None:
    slot: dict[str, Any] = {"start": iso(T0 + 10 * MINUTE), "end": iso(T0 + 40 * MINUTE), "zone": "DE", "workers": 1}
    with store.write() as session:
        job = session.get_one(Job, f"tiny-{ENDED + 2}")
        job.plan = {"slots": [slot]}
        job.not_before = T0 + back_off * MINUTE if back_off is not None else None
    with store.read() as session:
        found = status(session, SITE, session.get_one(Job, job.id), T0 + minutes * MINUTE)
    assert found["next_change_at"] == (iso(T0 + changes * MINUTE) if changes is not None else None)
