"""The site file: found upward, read with its paths, refused in one line."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.spec import InputError
from orchestrator.site import EMBEDDED_ZONE, Site, embedded_site, find_site, read_site

ZONE = {"DE": {"provider": "electricity_maps", "pue": 1.2, "gpus": 32}}


def written(folder: Path, **document: Any) -> Path:
    file = folder / "lowtide.yaml"
    file.write_text(yaml.safe_dump({"zones": ZONE, **document}))
    return file


def test_is_found_upward_from_the_working_directory(tmp_path: Path) -> None:
    written(tmp_path, state="./here")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_site(None, below).state == tmp_path / "here"


def test_without_a_file_it_is_embedded_on_a_generated_grid(tmp_path: Path) -> None:
    site = find_site(None, tmp_path)
    assert site == embedded_site()
    assert site.zones[EMBEDDED_ZONE].provider == ["demo"]
    assert site.ray == "local"


def test_a_zone_takes_one_provider_or_a_chain(tmp_path: Path) -> None:
    zones = {"FR": {"provider": ["electricity_maps", "demo"], "as": "fr"}, **ZONE}
    site = read_site(written(tmp_path, zones=zones))
    assert site.zones["FR"].provider == ["electricity_maps", "demo"]
    assert site.zones["FR"].as_name == "fr"
    assert site.zones["DE"].provider == ["electricity_maps"]


def test_a_file_of_intensities_is_a_file_or_folder_below_the_sites_or_an_address(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "lab.csv").write_text("")
    files = {"A": "lab.csv", "B": "traces", "C": "https://example.org/lab.csv", "D": str(tmp_path / "lab.csv")}
    zones = {zone: {"provider": "csv", "file": file} for zone, file in files.items()}
    site = read_site(written(tmp_path, zones=zones))
    assert {zone: of.file for zone, of in site.zones.items()} == {
        "A": str(tmp_path / "lab.csv"),
        "B": str(tmp_path / "traces"),
        "C": "https://example.org/lab.csv",
        "D": str(tmp_path / "lab.csv"),
    }


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"zonez": {}}, "zonez: unknown key; did you mean 'zones'?"),
        ({"zones": {}}, "zones: "),
        ({"zones": {"DE": {"provider": "demo", "pu": 1.2}}}, "zones.DE.pu: unknown key; did you mean 'pue'?"),
        ({"zones": {"DE": {"provider": "demo", "pue": 0.8}}}, "zones.DE.pue: "),
        ({"zones": {"DE": {"provider": "csv"}}}, "zones.DE: provider csv needs file"),
        ({"zones": {"DE": {"provider": "csv", "file": "no.csv"}}}, "zones.DE.file: no.csv is not a file below"),
        (
            {"zones": {"DE": {"provider": "demo", "checkpoints": "s4://a/b"}}},
            "zones.DE.checkpoints: s4://a/b is of no kind that fsspec knows",
        ),
        (
            {"zones": {"DE": {"provider": "demo", "checkpoints": "memory://a"}}},
            "zones.DE.checkpoints: memory://a names no place that other hosts can open",
        ),
        ({"zones": {"DE": {"provider": "demo", "checkpoints": "s3://"}}}, "names no place"),
        ({"zones": {"DE": {"provider": "demo", "checkpoints": "file://a/b"}}}, "names no place"),
        ({"providers": {"watttime": {"signal_type": "health_damage"}}}, "providers.watttime.signal_type: "),
        ({"providers": {"carbon_aware_sdk": {"signal": "both"}}}, "providers.carbon_aware_sdk.signal: "),
        ({"slot": 15}, "slot: 15 is not an amount with its unit"),
    ],
)
def test_refuses_in_one_line_that_names_field_and_fix(tmp_path: Path, document: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_site(written(tmp_path, **document))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_slots_begin_at_multiples_of_their_length_since_the_epoch() -> None:
    site = Site.model_validate({"zones": ZONE, "slot": "15m"})
    moment = datetime(2026, 3, 1, 6, 44, 59, 5, tzinfo=timezone.utc)
    assert site.slot_start(moment) == datetime(2026, 3, 1, 6, 30, tzinfo=timezone.utc)


def test_zones_may_keep_their_checkpoints_in_places_of_their_own(tmp_path: Path) -> None:
    zones = {"A": {"provider": "demo"}, "B": {"provider": "demo", "checkpoints": "/mnt/b/"}}
    site = read_site(written(tmp_path, zones=zones))
    assert site.checkpoints("A", "job") == str(tmp_path / "state" / "checkpoints" / "job")
    assert site.checkpoints("B", "job") == "/mnt/b/job"


def test_a_zone_that_keeps_checkpoints_at_a_url_works_in_a_folder_of_its_own(tmp_path: Path) -> None:
    zones = {
        "A": {"provider": "demo", "checkpoints": "s3://bucket/a/"},
        "B/1": {"provider": "demo", "checkpoints": "file:///mnt/b"},
        "C": {"provider": "demo", "checkpoints": "/mnt/c"},
    }
    site = read_site(written(tmp_path, zones=zones))
    assert [site.mirror(zone, "job") for zone in zones] == ["s3://bucket/a/job", "file:///mnt/b/job", None]
    folders = [site.checkpoints(zone, "job") for zone in zones]
    working = tmp_path / "state" / "working"
    assert folders == [str(working / "A" / "job"), str(working / "B%2F1" / "job"), "/mnt/c/job"]
    assert site.places("A", "job") == ("s3://bucket/a/job", str(working / "A" / "job"))
    assert site.places("C", "job") == ("/mnt/c/job",)
