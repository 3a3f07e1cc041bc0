"""The providers that a site file can name: lowtide's own, and those that other packages plug in.
In: a Setup. Out: its provider, or InputError that lists the names there are.
The chain of a zone's providers makes them by it; a plug-in is an entry point in the group `lowtide.signals`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from jobs.spec import InputError
from orchestrator.signal.provider import Make, Provider, Setup

GROUP = "lowtide.signals"

OWN = ("electricity_maps", "watttime", "uk", "energy_charts", "energinet", "carbon_aware_sdk", "csv", "demo")
"""Each is the module of that name in this package, and its `make`."""


def made(setup: Setup) -> Provider:
    """The provider of a zone; InputError where no module and no plug-in has that name, or its settings are wrong."""
    return _make(setup)(setup)


def _make(setup: Setup) -> Make:
    if setup.name in OWN:
        own: Make = import_module(f"orchestrator.signal.{setup.name}").make
        return own
    plugged = _plugged()
    field = f"zones.{setup.zone}.provider"
    if setup.name not in plugged:
        raise InputError(
            f"{field}: {setup.name!r} is not a provider; choose from {', '.join((*OWN, *sorted(plugged)))}"
        )
    try:
        make: Make = plugged[setup.name].load()
    except (ImportError, AttributeError) as fault:
        value = plugged[setup.name].value
        raise InputError(f"{field}: the plug-in {value} cannot be loaded ({fault}); mend or remove it") from None
    return make


def _plugged() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
