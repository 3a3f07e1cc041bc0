"""A CSV as a provider: measured before now, a forecast from now on, and wrong rows named."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from jobs.spec import InputError
from orchestrator.http.faults import SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.csv import CsvAddress, CsvFile, make, read_points
from orchestrator.signal.provider import Setup
from orchestrator.signal.sources import Signals
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import hour, stamp


def written(folder: Path, text: str) -> Path:
    path = folder / "lab.csv"
    path.write_text(text)
    return path


def hours(folder: Path, first: int, values: list[object]) -> Path:
    rows = "".join(f"{stamp(hour(first + n))},{value}\n" for n, value in enumerate(values))
    return written(folder, "start_utc,g_per_kwh\n" + rows)


def test_the_forecast_begins_with_the_slot_that_holds_now(tmp_path: Path) -> None:
    path = hours(tmp_path, -2, [10, 20, 30, 40, 50])
    forecast = CsvFile(path).forecast("LAB", datetime.now(timezone.utc))
    assert [(p.start, p.g_per_kwh, p.kind) for p in forecast.points] == [
        (hour(0), 30.0, "forecast"),
        (hour(1), 40.0, "forecast"),
        (hour(2), 50.0, "forecast"),
    ]
    assert (forecast.zone, forecast.provider, forecast.signal) == ("LAB", "csv", "average")


def test_what_has_passed_is_measured(tmp_path: Path) -> None:
    path = hours(tmp_path, -3, [10, 20, 30, 40, 50])
    points = CsvFile(path).measured("LAB", hour(-2), hour(3))
    assert [(p.start, p.g_per_kwh, p.kind) for p in points] == [
        (hour(-2), 20.0, "measured"),
        (hour(-1), 30.0, "measured"),
    ]


def test_gaps_and_empty_values_stay_unknown(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "start_utc,note,g_per_kwh\n2026-01-01T00:00:00Z,,100\n2026-01-01T01:00:00Z,dark,\n"
        "2026-01-01T02:00:00+00:00,,0\n2026-01-01T05:00:00Z,,7\n",
    )
    points = read_points(path)
    assert [(p.start.hour, p.end.hour, p.g_per_kwh) for p in points] == [
        (0, 1, 100),
        (1, 2, None),
        (2, 3, 0),
        (5, 6, 7),
    ]


def test_other_columns_and_offsets_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "start_utc,a,b\n2026-01-01T01:00:00+01:00,1,2\n2026-01-01T02:00:00+01:00,3,4\n")
    assert [(p.start.hour, p.g_per_kwh) for p in read_points(path, "b")] == [(0, 2), (1, 4)]


def test_a_year_of_hours_does_not_all_become_the_forecast(tmp_path: Path) -> None:
    path = hours(tmp_path, -24, [5] * 24 * 60)
    assert len(CsvFile(path).forecast("LAB", datetime.now(timezone.utc)).points) <= 14 * 24 + 1


def test_a_file_that_has_ended_says_so(tmp_path: Path) -> None:
    path = hours(tmp_path, -5, [1, 2, 3])
    with pytest.raises(SignalRefused, match=r"csv: zone LAB: .*lab.csv ends at .*lowtide grid"):
        CsvFile(path).forecast("LAB", datetime.now(timezone.utc))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("when,g_per_kwh\n", "line 1: has no column start_utc; its columns are when, g_per_kwh"),
        ("start_utc\n", "line 1: has no column g_per_kwh"),
        ("", "line 1: has no column start_utc"),
        ("start_utc,g_per_kwh\n2026-01-01T00:00:00Z,5\n", "holds fewer than two rows"),
        ("start_utc,g_per_kwh\n2026-01-01T00:00:00Z,5\n2026-01-01T01:00:00,6\n", "line 3: start_utc: .*add Z"),
        ("start_utc,g_per_kwh\nnoon,5\n", "line 2: start_utc: 'noon' is not an ISO 8601 time"),
        ("start_utc,g_per_kwh\n2026-01-01T00:00:00Z,-5\n", "line 2: g_per_kwh: '-5' is no intensity"),
        ("start_utc,g_per_kwh\n2026-01-01T00:00:00Z,nan\n", "line 2: g_per_kwh: 'nan'"),
        ("start_utc,g_per_kwh\n2026-01-01T00:00:00Z,5 g\n", "line 2: g_per_kwh: '5 g'"),
    ],
)
def test_a_wrong_file_is_refused_with_file_line_and_fix(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"lab.csv: {words}"):
        read_points(written(tmp_path, text))


def test_a_file_that_is_not_there_or_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.csv: cannot be read .*check the path"):
        read_points(tmp_path / "nowhere.csv")
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\xe0" * 10)
    with pytest.raises(InputError, match="no CSV in UTF-8"):
        read_points(tmp_path / "image.csv")


def test_a_folder_holds_one_file_a_zone_named_by_the_zone_or_its_other_name(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    hours(tmp_path, 0, [10, 20]).rename(folder / "DE.csv")
    hours(tmp_path, 0, [30, 40]).rename(folder / "fr.csv")
    zones = {
        "DE": ZoneSite(provider=["csv"], file=str(folder)),
        "FRANCE": ZoneSite.model_validate({"provider": "csv", "file": str(folder), "as": "fr"}),
    }
    found = Signals(zones, {}, tmp_path / "cache")
    assert found.forecast("DE").points[0].g_per_kwh == 10
    assert found.forecast("FRANCE").points[0].g_per_kwh == 30


def test_a_folder_without_the_zones_file_names_those_it_has(tmp_path: Path) -> None:
    for name in ("GB", "FR"):
        hours(tmp_path, 0, [10, 20]).rename(tmp_path / f"{name}.csv")
    found = Signals({"DE": ZoneSite(provider=["csv"], file=str(tmp_path))}, {}, tmp_path / "cache")
    with pytest.raises(InputError, match=r"zones.DE.file: .* has no DE.csv; .*`as` \(there are: FR, GB\)"):
        found.check()


def body(values: list[object], first: int = 0) -> bytes:
    rows = "".join(f"{stamp(hour(first + n))},{value}\n" for n, value in enumerate(values))
    return f"start_utc,g_per_kwh\n{rows}".encode()


@pytest.fixture
def address(http: Http, server: ProviderServer) -> CsvAddress:
    return CsvAddress(http, f"{server.url}/grids/lab.csv?format=csv", QUICK)


def test_a_file_at_an_address_is_read_as_one_here_and_fetched_once_in_a_slot(
    address: CsvAddress, server: ProviderServer
) -> None:
    server.on("grids/lab.csv", Reply(body=b"\xef\xbb\xbf" + body([5, 10, "", 30], first=-1)))
    for _ in range(3):
        forecast = address.forecast("LAB", datetime.now(timezone.utc))
        assert [point.g_per_kwh for point in forecast.points] == [10, None, 30]
    assert [point.g_per_kwh for point in address.measured("LAB", hour(-2), hour(1))] == [5]
    assert [(asked.path, asked.params) for asked in server.asked] == [("/grids/lab.csv", {"format": "csv"})]
    assert server.asked[0].headers["Accept"] == "text/csv"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"<html>" + b"x," * 5000, "lab.csv: line 1: has no column start_utc; its columns are <html>x"),
        (b"start_utc,g_per_kwh\n2026-01-01T00:00:00Z,5\n", "holds fewer than two rows"),
        (body([5, -1]), "line 3: g_per_kwh: '-1' is no intensity"),
        (body([5, 9e9]), "line 3: g_per_kwh: '9000000000.0' is no intensity; write g/kWh from 0 to 5000"),
        (b"start_utc,g_per_kwh\n" + b"n" * 9999 + b",5\n", "line 2: start_utc: .* is not an ISO 8601 time"),
        (b"\xff\xfe\x00", "is no CSV in UTF-8"),
    ],
)
def test_a_wrong_file_at_an_address_is_told_with_its_line_and_never_whole(
    address: CsvAddress, server: ProviderServer, sent: bytes, words: str
) -> None:
    server.on("grids/lab.csv", Reply(body=sent))
    with pytest.raises(SignalGarbled, match=words) as caught:
        address.forecast("LAB", datetime.now(timezone.utc))
    assert str(caught.value).startswith("csv: zone LAB: http://")
    assert len(str(caught.value)) < 400


def test_an_address_that_fails_is_an_outage_or_a_refusal(address: CsvAddress, server: ProviderServer) -> None:
    server.on("grids/lab.csv", Reply(status=408, body=b""), Reply(status=404, body=b""))
    with pytest.raises(SignalOutage):
        address.forecast("LAB", datetime.now(timezone.utc))
    with pytest.raises(SignalRefused):
        address.forecast("LAB", datetime.now(timezone.utc))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("ftp://example.org/lab.csv", "zones.LAB.file: ftp://example.org/lab.csv is no http or https address"),
        ("https://me:word@example.org/lab.csv", "zones.LAB.file: holds a user; give an address that needs none"),
    ],
)
def test_an_address_of_another_kind_or_with_a_password_is_refused(http: Http, file: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make(Setup("csv", "LAB", ZoneSite(provider=["csv"], file=file), ProviderSite(), lambda: http))
    assert "word" not in str(caught.value)


def test_the_last_good_answer_of_an_address_bridges_an_outage(
    cache_folder: Path, tmp_path: Path, server: ProviderServer
) -> None:
    zones = {"LAB": ZoneSite(provider=["csv"], file=f"{server.url}/lab.csv")}
    server.on("lab.csv", Reply(body=body([10, 20, 30])))
    assert Signals(zones, {}, cache_folder).forecast("LAB").stale is False
    server.on("lab.csv", Reply({"error": "maintenance"}, 408))
    (cache_folder / "forecasts").rename(tmp_path / "forecasts")
    other = cache_folder / "later"
    other.mkdir()
    (tmp_path / "forecasts").rename(other / "forecasts")
    assert Signals(zones, {}, other).forecast("LAB").stale is True
