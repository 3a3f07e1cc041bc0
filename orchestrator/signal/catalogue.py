"""The providers that a site file can name: lowtide's own, and those that other packages plug in.
In: a Setup. Out: its provider, or InputError that lists the names there are.
The chain of a zone's providers makes them by it; a plug-in is an entry point in the group `lowtide.signals`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

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
    field = f"zones.{setup.zone}.provider"
    plugged = {point.value: point for point in entry_points(group=GROUP, name=setup.name)}
    if not plugged:
        names = ", ".join((*OWN, *sorted(point.name for point in entry_points(group=GROUP))))
        raise InputError(f"{field}: {setup.name!r} is not a provider; choose from {names}")
    if len(plugged) > 1:
        raise InputError(f"{field}: {setup.name} is given by {' and '.join(sorted(plugged))}; remove one of them")
    ((value, point),) = plugged.items()
    try:
        make: Make = point.load()
    except (ImportError, AttributeError) as fault:
        raise InputError(f"{field}: the plug-in {value} cannot be loaded ({fault}); mend or remove it") from None
    return make
