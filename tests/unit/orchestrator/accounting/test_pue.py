"""PUE by time: which value holds when, and how the site file names it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.spec import InputError
from orchestrator.accounting.charge import Curve
from orchestrator.accounting.pue import PueSeries, mean_of, parts_of, read_pue
from orchestrator.site import resolve_site
from tests.unit.orchestrator.accounting.test_ledger import at, intensity

SERIES = PueSeries((at(0), at(60), at(120)), (1.1, 1.3, 1.2))


def test_each_value_holds_until_the_next_and_the_ends_go_on() -> None:
    assert parts_of(SERIES, at(30), at(90)) == [(at(30), at(60), 1.1), (at(60), at(90), 1.3)]
    assert parts_of(SERIES, at(-60), at(0)) == [(at(-60), at(0), 1.1)]
    assert parts_of(SERIES, at(500), at(600)) == [(at(500), at(600), 1.2)]
    assert parts_of(SERIES, at(60), at(60)) == [(at(60), at(60), 1.3)]
    assert mean_of(SERIES, at(30), at(90)) == pytest.approx(1.2)
    assert SERIES.mean == pytest.approx(1.2)


def test_joules_are_charged_by_the_pue_of_their_time() -> None:
    curve = Curve.of("DE", [intensity("DE", 0, 90, 400.0), intensity("DE", 90, 180, 100.0)])
    # 2 kWh over two hours: half an hour at 1.1, an hour at 1.3 (half of it at 400, half at 100), half an hour at 1.2
    charge = curve.charge(at(30), at(150), 7.2e6, SERIES)
    assert charge.operational_g == pytest.approx(0.5 * 1.1 * 400 + 0.5 * 1.3 * 400 + 0.5 * 1.3 * 100 + 0.5 * 1.2 * 100)
    assert charge.known_j == charge.energy_j == pytest.approx(7.2e6)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.floats(1, 2)), min_size=1, max_size=8, unique_by=lambda p: p[0]),
    st.floats(0, 300),
    st.floats(0.1, 200),
)
def test_the_parts_cover_the_stretch_once(steps: list[tuple[int, float]], start: float, length: float) -> None:
    steps.sort()
    series = PueSeries(tuple(at(minute) for minute, _ in steps), tuple(value for _, value in steps))
    parts = series.parts(at(start), at(start + length))
    assert (parts[0][0], parts[-1][1]) == (at(start), at(start + length))
    assert all(a[1] == b[0] for a, b in zip(parts, parts[1:], strict=False))
    total = sum((b - a for a, b, _ in parts), timedelta())
    assert total == at(start + length) - at(start)


def test_a_site_names_a_number_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "pue.csv").write_text("start_utc,pue\n2026-03-01T07:00:00Z,1.3\n2026-03-01T06:00:00Z,1.1\n")
    zones = {"DE": {"provider": "demo", "pue": "pue.csv"}, "FR": {"provider": "demo", "pue": 1.4}}
    site = resolve_site({"zones": zones}, tmp_path, "lowtide.yaml")
    assert site.zones["DE"].pue_by_time == PueSeries((at(0), at(60)), (1.1, 1.3))
    assert site.zones["DE"].pue == pytest.approx(1.2)
    assert (site.zones["FR"].pue_by_time, site.zones["FR"].pue) == (1.4, 1.4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start_utc,pue\n2026-03-01T07:00:00Z,0.9\n", "line 2: '0.9' is no PUE"),
        ("start_utc,pue\n2026-03-01T07:00:00Z,\n", "line 2: None is no PUE|line 2: '' is no PUE"),
        ("start_utc,pue\n2026-03-01T07:00:00,1.1\n", "line 2: .*no time zone"),
        ("start_utc,pue\n", "has no row"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "pue.csv").write_text(text)
    with pytest.raises(InputError, match=f"zones.DE.pue: .*({says})"):
        read_pue(tmp_path / "pue.csv", "zones.DE.pue")
