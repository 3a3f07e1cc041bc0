"""A zone's providers in the order in which they are asked, made and checked to go together.
In: the zone's part of the site file, and for which purpose. Out: a Chain, or InputError that names field and fix.
`sources` asks along it.

A zone plans by one signal and is charged by one: `plan_by` and `charge_by` may name another chain for each. Average
and marginal intensities are never mixed in one chain, nor lifecycle and direct factors where the providers tell them,
unless the zone says `mix: true`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jobs.spec import InputError
from orchestrator.signal.forecast import Signal
from orchestrator.signal.measured import Factor
from orchestrator.signal.provider import Provider
from orchestrator.site import ZoneSite

Purpose = Literal["plan", "charge"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
FIELD: dict[Purpose, str] = {"plan": "plan_by", "charge": "charge_by"}


@dataclass(frozen=True)
class Link:
    """One provider of a zone."""

    name: str
    """As the site file names it."""
    source: str
    """The text that tells it from every other source: zone, provider, the zone's name there, address or file."""
    zone_name: str
    """The provider's own name of the zone."""
    provider: Provider
    is_local: bool = False
    """On this machine: it has no outage that an earlier answer could bridge."""


@dataclass(frozen=True)
class Chain:
    """Providers that go together, in order."""

    links: tuple[Link, ...]

    @property
    def signals(self) -> frozenset[Signal]:
        """Average, marginal, or both where the zone mixes them."""
        return frozenset(link.provider.signal for link in self.links)

    @property
    def source(self) -> str:
        """The text that tells it from every other chain, by the sources of its links."""
        return "; ".join(link.source for link in self.links)

    @property
    def has_renewable(self) -> bool:
        """Whether a forecast along it can carry renewable shares."""
        return any(bool(getattr(link.provider, "has_renewable", False)) for link in self.links)


def chained(zone: str, of: ZoneSite, purpose: Purpose, link: Callable[[str], Link]) -> Chain:
    """The chain of a zone for a purpose; InputError where it mixes what does not go together without `mix`."""
    chain = Chain(tuple(link(name) for name in (of.planning if purpose == "plan" else of.charging)))
    if not of.mix:
        field = FIELD[purpose] if getattr(of, FIELD[purpose]) else "provider"
        _alike(chain, f"zones.{zone}.{field}")
    return chain


def factor_of(provider: Provider) -> Factor | None:
    """The emission factors that a provider counts by; None where it does not say."""
    said: Factor | None = getattr(provider, "factor", None)
    return said


def _alike(chain: Chain, field: str) -> None:
    names = [link.name for link in chain.links]
    signals: list[str] = [link.provider.signal for link in chain.links]
    if len(set(signals)) > 1:
        apart = "; ".join(
            f"{use}: {names[signals.index(kind)]}" for use, kind in (("plan_by", "marginal"), ("charge_by", "average"))
        )
        raise InputError(
            f"{field}: {_told(names, signals)} intensities, which do not mix; name one kind only, both by purpose "
            f"({apart}), or write mix: true"
        )
    factors = [(link.name, factor) for link in chain.links if (factor := factor_of(link.provider)) is not None]
    if len({factor for _, factor in factors}) > 1:
        told = _told([name for name, _ in factors], [factor for _, factor in factors])
        raise InputError(f"{field}: {told} emissions, which do not mix; name one kind only, or write mix: true")


def _told(names: Sequence[str], kinds: Sequence[str]) -> str:
    """`watttime gives marginal and electricity_maps gives average`."""
    first: dict[str, str] = {}
    for name, kind in zip(names, kinds, strict=True):
        first.setdefault(kind, f"{name} gives {kind}")
    return " and ".join(list(first.values())[:2])
