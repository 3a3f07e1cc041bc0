"""What every provider of a carbon signal is, and what one is made from: the protocol that plug-ins implement too.
In: a Setup, the zone's and the provider's part of the site file with the HTTP session. Out: a Provider.
One module a provider implements it; the catalogue makes them, the chain of a zone's providers asks them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jobs.spec import InputError
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Secret
from orchestrator.signal.forecast import Forecast, Point, Signal
from orchestrator.site import ProviderSite, ZoneSite

if TYPE_CHECKING:  # files and the demo grid need no HTTP, whose libraries take a while to import
    from orchestrator.http.session import Http

Value = TypeVar("Value")


class Provider(Protocol):
    """A source of intensities. Its methods raise SignalFault, or InputError where the user's file is wrong.

    It may say more of itself: `factor` ("lifecycle" or "direct"), where its answers are all of one kind, and
    `has_renewable = True`, where its forecasts carry renewable shares.
    """

    @property
    def name(self) -> str:
        """The name that site files use."""

    @property
    def signal(self) -> Signal:
        """Whether its intensities are average or marginal."""

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh, as far as the provider sees."""

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Points in [start, end) that are no forecast; empty where the provider has or shows none."""


@dataclass(frozen=True)
class Setup:
    """What one zone's provider is made from."""

    name: str
    """The provider's name in the site file."""
    zone: str
    of: ZoneSite
    settings: ProviderSite
    http: Callable[[], Http]
    """The process's one HTTP session, made when it is first asked for: patient, bounded and cached."""
    shared: dict[Hashable, Any] = field(default_factory=dict)
    """What the providers of all zones hold in common, such as a login; see `once`."""

    @property
    def zone_name(self) -> str:
        """The provider's own name of the zone."""
        return self.of.name_at(self.name) or self.zone

    @property
    def field(self) -> str:
        """The provider's section in the site file, for messages."""
        return f"providers.{self.name}"

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value that `make` gave when the key was first asked for, whatever the zone."""
        if key not in self.shared:
            self.shared.setdefault(key, make())  # of threads that make one at once, all use the first
        value: Value = self.shared[key]
        return value

    def base_url(self, usual: str) -> str:
        """The address in the site file, else the usual one; InputError where it is none or holds a secret."""
        url = self.settings.base_url or usual
        if not url.startswith(("http://", "https://")):
            raise InputError(f"{self.field}.base_url: {url!r} is no address; write e.g. {usual}")
        if "@" in url or "?" in url:
            raise InputError(
                f"{self.field}.base_url: holds a user or a query; keep secrets in an environment variable (token_env)"
            )
        return url.rstrip("/")

    def secret(self, key: str) -> Secret | None:
        """What the environment variable named by `token_env`, `user_env` or `password_env` holds; None without one.

        InputError where the variable is named and not set.
        """
        variable = getattr(self.settings, key)
        if variable is None:
            return None
        value = Secret(os.environ.get(variable, "").strip())
        if not value:
            raise InputError(f"{self.field}.{key}: {variable} is not set; export it")
        return value

    @property
    def limits(self) -> Limits:
        """The bounds of one question under the provider's `timeout`."""
        usual, timeout_s = Limits(), self.settings.timeout_s
        if timeout_s is None:
            return usual
        return replace(
            usual,
            connect_s=min(usual.connect_s, timeout_s),
            read_s=timeout_s,
            total_s=max(usual.total_s, timeout_s + usual.wait_s),
        )


Make = Callable[[Setup], Provider]
"""What a provider's module offers as `make`, and a plug-in as its entry point in the group `lowtide.signals`."""
