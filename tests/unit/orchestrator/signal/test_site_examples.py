"""Site files as people write them, one for each provider and those of the README: every option is read and used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.spec import InputError
from orchestrator.signal.catalogue import OWN
from orchestrator.signal.sources import Signals
from orchestrator.site import ProviderSite, read_site

ROOT = Path(__file__).resolve().parents[4]

EXAMPLES = {
    "electricity_maps": """
        zones: {DE: {provider: electricity_maps}}
        providers: {electricity_maps: {token_env: ELECTRICITY_MAPS_TOKEN, timeout: 10s}}
    """,
    "watttime": """
        zones: {CAISO_NORTH: {provider: watttime}, TEXAS: {provider: watttime, as: ERCOT_NORTH}}
        providers: {watttime: {user_env: WATTTIME_USER, password_env: WATTTIME_PASSWORD, signal_type: co2_moer}}
    """,
    "uk": """
        zones: {GB: {provider: uk}, BRISTOL: {provider: uk, as: BS16}, LONDON: {provider: uk, as: regionid/13}}
        providers: {uk: {base_url: "https://api.carbonintensity.org.uk", timeout: 10s}}
    """,
    "energy_charts": """
        zones: {DE: {provider: energy_charts}, FRANCE: {provider: energy_charts, as: fr}}
    """,
    "energinet": """
        zones: {DK1: {provider: energinet}, DK-DK2: {provider: [energinet, demo]}}
    """,
    "carbon_aware_sdk": """
        zones: {eastus: {provider: carbon_aware_sdk}}
        providers: {carbon_aware_sdk: {base_url: "http://localhost:8080", signal: marginal}}
    """,
    "csv": """
        zones:
          LAB: {provider: csv, file: lab.csv}
          NORTH: {provider: csv, file: traces}
          SOUTH: {provider: csv, file: traces, as: lab}
          WEB: {provider: csv, file: "https://example.org/lab.csv?format=csv"}
    """,
    "demo": """
        zones: {DEMO: {provider: demo}}
    """,
}


def _readme() -> dict[str, str]:
    """The site files among the README's blocks of YAML."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    sites = [block for block in blocks if "zones" in yaml.safe_load(block)]
    return {f"README {n}": block for n, block in enumerate(sites)}


@pytest.mark.parametrize("text", [*EXAMPLES.values(), *_readme().values()], ids=[*EXAMPLES, *_readme()])
def test_the_providers_of_a_site_file_can_be_made(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in re.findall(r"\w+_env: (\w+)", text):
        monkeypatch.setenv(variable, "a-secret")
    (tmp_path / "traces").mkdir()
    for name in [*re.findall(r"file: ([\w.-]+\.csv)", text), "traces/NORTH.csv", "traces/lab.csv"]:
        (tmp_path / name).write_text("start_utc,g_per_kwh\n2026-01-01T00:00:00Z,5\n2026-01-01T01:00:00Z,6\n")
    file = tmp_path / "lowtide.yaml"
    file.write_text(text)
    Signals.of(read_site(file)).check()


def test_every_provider_of_lowtides_own_has_an_example() -> None:
    assert EXAMPLES.keys() == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_an_option_that_a_provider_section_does_not_have_is_refused_with_those_it_has(
    name: str, tmp_path: Path
) -> None:
    document: dict[str, Any] = {"zones": {"A": {"provider": "demo"}}, "providers": {name: {"token": "abc"}}}
    file = tmp_path / "lowtide.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(InputError) as caught:
        read_site(file)
    told = str(caught.value)
    assert f"providers.{name}.token: unknown key; did you mean 'token_env'?" in told
    assert all((field.alias or key) in told for key, field in ProviderSite.model_fields.items())
