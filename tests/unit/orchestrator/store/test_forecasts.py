"""Forecasts in the store: the newest by purpose, earlier ones for comparison, history by a provider's newest word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from orchestrator.signal.chain import Purpose
from orchestrator.signal.forecast import Forecast, Point, Share
from orchestrator.signal.measured import Measured
from orchestrator.store import Store, facts, forecasts
from orchestrator.store.engine import open_engines
from orchestrator.store.migrate import VERSION
from tests.unit.orchestrator.store.earlier import unchained

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def fault_of(session: Session, zone: str, purpose: Purpose) -> str | None:
    """What the providers of a zone said when they were last asked, where that was no forecast."""
    row = forecasts.tried(session, zone, purpose)
    return row.fault if row is not None else None


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


def given(values: list[float | None], fetched_at: datetime = NOW, step: timedelta = HOUR) -> Forecast:
    points = tuple(Point(NOW + n * step, NOW + (n + 1) * step, value) for n, value in enumerate(values))
    return Forecast("DE", "electricity_maps", "average", points, fetched_at)


def test_a_forecast_comes_back_as_it_was_kept(store: Store) -> None:
    point = Point(NOW, NOW + HOUR, 210.0, "forecast", 180.0, 240.0, 200.0)
    kept = replace(given([None]), points=(point,), renewable=(Share(NOW, NOW + HOUR, 61.5),), note="a note")
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, kept, None)
    with store.read() as session:
        assert forecasts.newest(session) == {"DE": kept}


def test_a_fault_leaves_the_earlier_forecast_and_says_why_it_is_stale(store: Store) -> None:
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, given([100.0]), None, "DE electricity_maps")
        forecasts.keep(session, "DE", "plan", NOW + HOUR, None, "out of order", "DE electricity_maps")
    with store.read() as session:
        assert forecasts.newest(session) == {"DE": replace(given([100.0]), stale=True, fault="out of order")}


def test_what_others_forecast_does_not_stay_once_the_zone_has_other_providers(store: Store) -> None:
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, given([100.0]), None, "DE demo")
        forecasts.keep(session, "DE", "plan", NOW + HOUR, None, "out of order", "DE electricity_maps")
    with store.read() as session:
        assert forecasts.newest(session) == {}


def test_a_forecast_in_the_form_of_an_earlier_version_is_as_none(store: Store) -> None:
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, given([100.0]), None)
        row = forecasts.tried(session, "DE", "plan")
        assert row is not None
        row.forecast = {"zone": "DE", "points": [{"start": "2026-03-01T12:00:00Z"}]}
    with store.read() as session:
        row = forecasts.tried(session, "DE", "plan")
        assert row is not None and not forecasts.is_of(row, "")
        assert forecasts.newest(session) == {}


def test_moments_between_seconds_come_back_as_they_were(store: Store) -> None:
    edge = NOW + timedelta(hours=1, microseconds=123457)
    kept = replace(given([]), points=(Point(NOW, edge, 100.0), Point(edge, edge + HOUR, None)))
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, kept, None)
    with store.read() as session:
        assert forecasts.newest(session) == {"DE": kept}


def test_what_a_zone_plans_by_and_is_charged_by_are_kept_apart(store: Store) -> None:
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, given([100.0]), None)
        forecasts.keep(session, "DE", "charge", NOW, None, "no answer")
    with store.read() as session:
        assert forecasts.newest(session, "plan").keys() == {"DE"}
        assert forecasts.newest(session, "charge") == {}
        assert fault_of(session, "DE", "charge") == "no answer"


def test_earlier_forecasts_are_hourly_means_some_hours_apart_and_old_ones_go(store: Store) -> None:
    quarters = timedelta(minutes=15)
    moments = [NOW - forecasts.EARLIER_KEPT - HOUR, NOW, NOW + HOUR, NOW + forecasts.EARLIER_EVERY]
    with store.write() as session:
        for moment in moments:
            forecasts.keep_earlier(
                session, given([100.0, 200.0, 300.0, 400.0, None, None, None, None], moment, quarters)
            )
    with store.read() as session:
        kept = forecasts.earlier(session, "DE", "electricity_maps")
    assert [one.fetched_at for one in kept] == [NOW, NOW + forecasts.EARLIER_EVERY]
    assert kept[0].points[0] == Point(NOW, NOW + HOUR, 250.0)
    assert all(point.g_per_kwh is None for point in kept[0].points[1:])


def test_history_is_the_newest_word_and_measured_outlives_estimated(store: Store) -> None:
    def said(g_per_kwh: float, kind: str, minutes: int, at: datetime = NOW) -> Measured:
        point = Point(at, at + HOUR, g_per_kwh, kind)  # type: ignore[arg-type]
        return Measured("DE", "electricity_maps", "average", (point,), NOW + timedelta(minutes=minutes))

    with store.write() as session:
        for word in (said(300, "estimated", 0), said(310, "measured", 1), said(305, "estimated", 2)):
            facts.add_intensities(session, word)
        facts.add_intensities(session, said(250, "measured", 0, NOW + HOUR))
        facts.add_intensities(session, said(260, "measured", 5, NOW + HOUR))
        facts.add_intensities(session, said(900, "forecast", 9, NOW + 2 * HOUR))
    with store.read() as session:
        found = forecasts.history(session, "DE", ["electricity_maps"], NOW)
        assert [(point.g_per_kwh, point.kind) for point in found] == [(310, "measured"), (260, "measured")]
        assert forecasts.history(session, "DE", ["another"], NOW) == []
        assert forecasts.latest_start(session, "DE", ["electricity_maps"]) == NOW + HOUR


def test_a_store_of_version_1_gets_the_new_tables_and_keeps_its_facts(database: str) -> None:
    fresh = Store(database)
    with fresh.write() as session:
        facts.add_intensities(session, given([100.0]))
    fresh.close()
    engine, _ = open_engines(database)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE earlier_forecasts"))
        connection.execute(text("DROP TABLE forecasts"))
        connection.execute(text("CREATE TABLE forecasts (zone VARCHAR(80) PRIMARY KEY, tried_at TIMESTAMP)"))
        unchained(connection)
        connection.execute(text("UPDATE schema_version SET version = 1"))
    Store(database).close()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalar_one() == VERSION
        assert connection.execute(text("SELECT count(*) FROM intensities")).scalar_one() == 1
        columns = {column["name"] for column in inspect(connection).get_columns("forecasts")}
        assert {"zone", "purpose", "tried_at", "fault", "forecast", "measured_at"} == columns
    engine.dispose()
