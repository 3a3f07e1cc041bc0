"""The forecast command: the curve with its sources, what the zone's past adds to it, and how good forecasts were."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml

from jobs.spec import iso
from orchestrator.store import Store, forecasts
from tests.unit.orchestrator.cli.conftest import Lowtide


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site whose zone DE has four weeks behind and 20 h ahead in a file, and NEW two hours."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    for name, first in (("de", -24 * 28), ("new", -2)):
        hours = [now + timedelta(hours=n) for n in range(first, 20)]
        rows = [f"{iso(at)},{300 + 100 * math.sin(at.hour / 24 * 2 * math.pi) + at.day:.1f}" for at in hours]
        (tmp_path / f"{name}.csv").write_text("start_utc,g_per_kwh\n" + "\n".join(rows) + "\n")
    zones = {"DE": {"provider": "csv", "file": "de.csv"}, "NEW": {"provider": "csv", "file": "new.csv"}}
    (tmp_path / "lowtide.yaml").write_text(yaml.safe_dump({"zones": zones}))
    monkeypatch.chdir(tmp_path)


def test_the_curve_says_who_said_what_until_when(lowtide: Lowtide) -> None:
    code, out, _ = lowtide("forecast", "DE")
    assert code == 0
    assert "forecast by csv" in out
    assert "extended from the zone's history" in out
    assert "80 % interval" in out


def test_a_stale_curve_says_why_there_is_no_newer_one(lowtide: Lowtide, tmp_path: Path) -> None:
    assert lowtide("forecast", "DE")[0] == 0
    store = Store(f"sqlite:///{tmp_path / 'state' / 'lowtide.db'}")
    with store.write() as session:
        row = forecasts.tried(session, "DE", "plan")
        assert row is not None
        row.tried_at -= timedelta(hours=1)
    store.close()
    (tmp_path / "de.csv").write_text("start_utc,g_per_kwh\n2020-01-01T00:00:00Z,1\n2020-01-01T01:00:00Z,[2]\n")
    code, out, _ = lowtide("forecast", "DE")
    assert (
        "stale: fetched" in out
        and "no newer one: " in out
        and "de.csv: line 3: g_per_kwh: '[2]' is no intensity" in out
        and code == 0
    )


def test_a_wrong_file_is_the_users_input(lowtide: Lowtide, tmp_path: Path) -> None:
    (tmp_path / "de.csv").write_text("start_utc,g_per_kwh\n2020-01-01T00:00:00Z,much\n")
    code, out, err = lowtide("forecast", "DE")
    assert (code, out) == (2, "")
    assert "line 2: g_per_kwh: 'much' is no intensity" in err and err.count("\n") == 1


def test_the_json_has_a_week_ahead_with_intervals(lowtide: Lowtide) -> None:
    _, out, _ = lowtide("forecast", "DE", "--json")
    points = json.loads(out)["points"]
    assert len(points) >= 7 * 24
    assert {point["kind"] for point in points} == {"forecast", "extended"}
    for point in points:
        assert point["low_g_per_kwh"] is None or point["low_g_per_kwh"] <= point["g_per_kwh"] <= point["high_g_per_kwh"]


def test_without_a_past_the_forecast_stays_as_it_is_given(lowtide: Lowtide) -> None:
    _, out, _ = lowtide("forecast", "NEW", "--json")
    points = json.loads(out)["points"]
    assert {point["kind"] for point in points} == {"forecast"}
    assert all(point["given_g_per_kwh"] is None for point in points)


def test_a_backtest_compares_methods_by_lead_time(lowtide: Lowtide) -> None:
    code, out, _ = lowtide("forecast", "DE", "--backtest")
    assert code == 0
    assert "1 to 6" in out and "yesterday" in out and "not corrected yet" in out
    _, out, _ = lowtide("forecast", "DE", "--backtest", "--json")
    rows = {(row["method"], row["first_h"]): row for row in json.loads(out)["rows"]}
    assert rows["extended", 1]["pairs"] > 100
    assert rows["extended", 1]["mape_percent"] < rows["yesterday", 1]["mape_percent"] + 1e-9
    assert rows["corrected", 1]["mape_percent"] is None


def test_a_backtest_without_a_past_says_what_it_needs(lowtide: Lowtide) -> None:
    code, out, err = lowtide("forecast", "NEW", "--backtest")
    assert (code, out) == (2, "")
    assert "--backtest: fewer than 48 hours of NEW" in err and err.count("\n") == 1
