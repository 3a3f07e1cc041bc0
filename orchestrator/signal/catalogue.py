"""The providers that a site file can name: lowtide's own, and those that other packages plug in.
In: a Setup, or the site file's sections. Out: its provider, or InputError that lists the names and options there are.
The chain of a zone's providers makes them by it; a plug-in is an entry point in the group `lowtide.signals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points

from jobs.spec import InputError
from orchestrator.signal.provider import Make, Provider, Setup
from orchestrator.site import ProviderSite

GROUP = "lowtide.signals"

OWN = ("electricity_maps", "watttime", "uk", "energy_charts", "energinet", "carbon_aware_sdk", "csv", "demo")
"""Each is the module of that name in this package, and its `make`."""

_TAKES: Mapping[str, frozenset[str]] = {
    "electricity_maps": frozenset({"token_env", "granularity", "factors"}),
    "watttime": frozenset({"user_env", "password_env", "signal_type"}),
    "carbon_aware_sdk": frozenset({"signal"}),
}
"""What a provider of lowtide's own can be told beside `base_url` and `timeout`, which every one takes."""


def check(providers: Mapping[str, ProviderSite]) -> None:
    """InputError where a section is of no provider, or has an option that its provider would ignore."""
    for name, settings in providers.items():
        if name not in OWN:
            if not entry_points(group=GROUP, name=name):
                raise InputError(f"providers.{name}: is not a provider; choose from {_names()}")
            continue
        fields = type(settings).model_fields
        given = {fields[field].alias or field for field in settings.model_fields_set}
        takes = ("base_url", "timeout", *sorted(_TAKES.get(name, ())))
        for option in sorted(given - set(takes)):
            raise InputError(f"providers.{name}.{option}: {name} takes {', '.join(takes)}; remove it")


def made(setup: Setup) -> Provider:
    """The provider of a zone; InputError where no module and no plug-in has that name, or its settings are wrong."""
    return _make(setup)(setup)


def _names() -> str:
    return ", ".join((*OWN, *sorted(point.name for point in entry_points(group=GROUP))))


def _make(setup: Setup) -> Make:
    if setup.name in OWN:
        own: Make = import_module(f"orchestrator.signal.{setup.name}").make
        return own
    field = f"zones.{setup.zone}.provider"
    plugged = {point.value: point for point in entry_points(group=GROUP, name=setup.name)}
    if not plugged:
        raise InputError(f"{field}: {setup.name!r} is not a provider; choose from {_names()}")
    if len(plugged) > 1:
        raise InputError(f"{field}: {setup.name} is given by {' and '.join(sorted(plugged))}; remove one of them")
    ((value, point),) = plugged.items()
    try:
        make: Make = point.load()
    except (ImportError, AttributeError) as fault:
        raise InputError(f"{field}: the plug-in {value} cannot be loaded ({fault}); mend or remove it") from None
    return make
