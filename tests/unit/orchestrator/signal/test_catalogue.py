"""The providers that a site file can name: lowtide's own, those of other packages, and what is said of the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.spec import InputError
from orchestrator.http.faults import SignalGarbled
from orchestrator.signal.catalogue import OWN
from orchestrator.signal.sources import Signals
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import hour

MODULE = '''
"""A provider as another package would write it: one number a zone, from a server of its own."""

from datetime import datetime, timedelta, timezone

from orchestrator.http.faults import SignalRefused
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.signal.reading import Reading
from orchestrator.http.refusal import Asker

HOUR = timedelta(hours=1)


class House:
    name = "house"
    signal = "average"

    def __init__(self, setup):
        self._http = setup.http()
        self._url = setup.base_url("https://example.org") + "/now"
        self._key = {"Authorization": setup.secret("token_env")}
        self._limits = setup.limits

    def forecast(self, zone_name, now):
        reading = Reading(self.name, zone_name)
        start = now.replace(minute=0, second=0, microsecond=0)

        def read(document):
            value = reading.mapping(document).get("value")
            return reading.intensities([value], [start]), start + HOUR

        answer = self._http.get(
            self._url, {"of": zone_name}, read, Asker(self.name, zone_name), secrets=self._key, limits=self._limits
        )
        points = tuple(Point(start + n * HOUR, start + (n + 1) * HOUR, answer.value[0]) for n in range(3))
        return Forecast(zone_name, self.name, self.signal, points, answer.fetched_at)

    def measured(self, zone_name, start, end):
        return ()


make = House
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package where Python looks for installed ones: its module and its metadata with entry points."""

    def put(points: str, name: str = "house_signals") -> None:
        site = tmp_path / f"site-packages-{name}"
        info = site / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(MODULE)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.1\n")
        (info / "RECORD").write_text("")
        (info / "entry_points.txt").write_text(f"[lowtide.signals]\n{points}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(site)

    return put


def signals(folder: Path, provider: str, settings: ProviderSite | None = None) -> Signals:
    zone = ZoneSite.model_validate({"provider": provider, "as": "kitchen"})
    return Signals({"HOME": zone}, {provider: settings or ProviderSite()}, folder, hold_off_s=0.0)


def test_the_provider_of_an_installed_package_is_asked_as_lowtides_own(
    install: Install, cache_folder: Path, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("house = house_signals:make")
    monkeypatch.setenv("HOUSE_KEY", "key-7")
    server.on("now", Reply({"value": 123}))
    found = signals(cache_folder, "house", ProviderSite(base_url=server.url, token_env="HOUSE_KEY"))
    for _ in range(3):
        forecast = found.forecast("HOME")
    assert (forecast.zone, forecast.provider, forecast.at(hour(1))) == ("HOME", "house", 123)
    assert [(asked.path, asked.params) for asked in server.asked] == [("/now", {"of": "kitchen"})]
    assert server.asked[0].headers["Authorization"] == "key-7"
    assert "key-7" not in "".join(path.read_text("latin-1") for path in cache_folder.rglob("*") if path.is_file())


def test_its_faults_are_told_as_those_of_lowtides_own(
    install: Install, cache_folder: Path, server: ProviderServer
) -> None:
    install("house = house_signals:make")
    server.on("now", Reply({"value": -5}))
    with pytest.raises(SignalGarbled, match="^house: zone kitchen: the provider sent -5 as the intensity"):
        signals(cache_folder, "house", ProviderSite(base_url=server.url)).forecast("HOME")


def test_a_name_that_nobody_has_lists_all_there_are(install: Install, tmp_path: Path) -> None:
    install("house = house_signals:make")
    with pytest.raises(InputError) as caught:
        signals(tmp_path / "cache", "huose").check()
    told = str(caught.value)
    assert told.startswith("zones.HOME.provider: 'huose' is not a provider; choose from ")
    assert all(name in told for name in (*OWN, "house"))


@pytest.mark.parametrize("target", ["no_such_module:make", "house_signals:no_such"])
def test_a_plug_in_that_cannot_be_loaded_is_named(install: Install, tmp_path: Path, target: str) -> None:
    install(f"house = {target}")
    with pytest.raises(InputError, match=f"zones.HOME.provider: the plug-in {target} cannot be loaded .*; mend or"):
        signals(tmp_path / "cache", "house").check()


def test_a_plug_in_never_takes_the_place_of_lowtides_own(install: Install, tmp_path: Path) -> None:
    install("demo = house_signals:make")
    assert "generated" in (signals(tmp_path / "cache", "demo").forecast("HOME").note or "")


def test_a_name_that_two_packages_give_is_refused_with_both(install: Install, tmp_path: Path) -> None:
    install("house = house_signals:make")
    install("house = other_signals:make", name="other_signals")
    with pytest.raises(InputError, match=r"house.* house_signals:make and other_signals:make; remove one"):
        signals(tmp_path / "cache", "house").check()
