"""Figures of jobs in turns: the oldest first, one at least, and none anew while nothing was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from cluster.api import MeterRow
from orchestrator.controller.figures import Figures
from orchestrator.signal.measured import Measured
from orchestrator.site import Site
from orchestrator.store import Store, draws, facts, jobs
from orchestrator.store.schema import Job, Segment
from tests.unit.orchestrator.store.test_accounts import HOUR, SPEC, T0, points

SITE = Site.model_validate({"zones": {"DE": {"provider": "demo"}}})
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Three jobs that run in DE at 100 g/kWh."""
    opened = Store(database)
    with opened.write() as session:
        for _ in range(3):
            job = jobs.submit(session, SPEC, T0)
            session.add(
                Segment(
                    id=f"{job.id}-1", job_id=job.id, n=1, zone="DE", workers=1, gpus=0, reason="start",
                    run_until=T0 + 9 * HOUR, ends_as="expired", ordered_at=T0, start_step=0, step=1, parts_s={},
                )
            )  # fmt: skip
        facts.add_intensities(session, Measured("DE", "demo", "average", points(100.0, 100.0), T0))
    yield opened
    opened.close()


def draw(store: Store, job_id: str, minute: int) -> None:
    """A kilowatt for a minute."""
    start = T0 + minute * MINUTE
    owner = (job_id, f"{job_id}-1", 0)
    row = MeterRow("boot", f"cpu-{job_id}", minute, "n", start, start + MINUTE, 60_000.0, "rapl", "train", *owner)
    with store.write() as session:
        facts.add_rows(session, [row])


def look(store: Store, figures: Figures, minute: int) -> dict[str, float | None]:
    """Grams of each job as a pass at that minute knows them."""
    with store.read() as session:
        found = list(session.query(Job).order_by(Job.id))
        drawn = draws.energy_j(session, [job.id for job in found])
        known = figures.of(session, SITE, [job.id for job in found], drawn, T0 + minute * MINUTE)
        return {job_id: figure.emissions_g for job_id, figure in known.items()}


def test_a_pass_with_time_knows_the_grams_of_all(store: Store) -> None:
    draw(store, "tiny", 0)
    assert look(store, Figures(60.0), 1) == {"tiny": pytest.approx(100 / 60), "tiny-2": 0.0, "tiny-3": 0.0}


def test_a_pass_without_time_makes_one_figure_the_oldest(store: Store) -> None:
    figures = Figures(0.0)
    for job_id in ("tiny", "tiny-2", "tiny-3"):
        draw(store, job_id, 0)
    assert [len(look(store, figures, minute)) for minute in (1, 2, 3)] == [1, 2, 3]
    for job_id in ("tiny", "tiny-2", "tiny-3"):
        draw(store, job_id, 1)
    assert look(store, figures, 4)["tiny"] == pytest.approx(200 / 60)
    assert look(store, figures, 5) == pytest.approx({"tiny": 200 / 60, "tiny-2": 200 / 60, "tiny-3": 100 / 60})


def test_what_drew_nothing_since_is_not_made_anew_until_intensities_may_be_revised(store: Store) -> None:
    figures = Figures(60.0)
    draw(store, "tiny", 0)
    look(store, figures, 1)
    with store.write() as session:
        facts.add_intensities(session, Measured("DE", "demo", "average", points(200.0), T0 + HOUR))
    assert look(store, figures, 2)["tiny"] == pytest.approx(100 / 60)
    assert look(store, figures, 11)["tiny"] == pytest.approx(200 / 60)


def test_a_job_that_is_not_asked_about_any_more_is_forgotten(store: Store) -> None:
    figures = Figures(60.0)
    look(store, figures, 1)
    with store.read() as session:
        assert set(figures.of(session, SITE, ["tiny-2"], {}, T0 + MINUTE)) == {"tiny-2"}
