"""What is refused at the door: a spec that this site could never run as it asks.
In: a validated spec, the site, what is known of jobs like it. Out: nothing, or InputError that names field and fix.
`submit`, `run` and `plan` ask before anything is stored; what merely does not fit now is stored and waits.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from jobs.spec import InputError, JobSpec, iso
from orchestrator.controller.frame import Framing, basis_of, deadline, frame, measured, opening
from orchestrator.plan import POLICIES, plan
from orchestrator.plan.problem import Plan, Problem
from orchestrator.plan.windows import windows
from orchestrator.signal.chain import PURPOSES, Chain, Purpose
from orchestrator.signal.forecast import Signal
from orchestrator.signal.sources import Signals
from orchestrator.site import Site

LATER: dict[str, str] = {
    "model.lora": "a full fine-tuning",
}
"""Keys of the contract that this version does not act on yet, and what to use instead."""


def admit(spec: JobSpec, site: Site, source: str) -> None:
    """Refuse what can be seen from the spec and the site alone."""
    _known_features(spec, source)
    for zone in spec.carbon.zones or ():
        if zone not in site.zones:
            near = difflib.get_close_matches(zone, site.zones, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{source}: carbon.zones: the site has no zone {zone!r}; {hint}it has {_names(site)}")
    _room(spec, site, source)
    _signals(spec, site, source)


def remarks(spec: JobSpec) -> list[str]:
    """What a user shall know of a job that is admitted, a line each."""
    if not spec.is_blind():
        return []
    assert spec.script is not None
    ends = f"{'the end of a window, ' if spec.carbon.windows else ''}a pause or a lost node"
    return [
        f"script: {spec.script.entrypoint!r} never imports lowtide, so it is checkpoint-blind: started once, in the "
        f"best stretch, it runs to its end; where {ends} ends it, it begins from scratch",
        "script: an import and three calls let it pause: see `A script of your own` in the README, or set script.asks",
    ]


def admit_time(framing: Framing, site: Site, source: str) -> Plan | None:
    """Refuse a deadline that cannot be met; returns the plan, or None where no forecast has come yet."""
    spec, now = framing.spec, framing.now
    due, start = deadline(framing), max(now, spec.not_before or now)
    if due <= start:
        what = "has passed" if due <= now else f"is before not_before {iso(start)}"
        raise InputError(f"{source}: carbon.finish_by: {iso(due)} {what}; give a later time")
    if spec.carbon.windows and not _windows(spec, start, due, source):
        following = _windows(spec, start, due + timedelta(days=400), source)
        first = f"; the next opens {iso(following[0][0])}" if following else ""
        raise InputError(
            f"{source}: carbon.windows: none is open before finish_by {iso(due)}{first}: give a later time"
        )
    problem = frame(framing, opening(framing).spans, site)
    if isinstance(problem, str):
        return None
    try:
        made = plan(problem, spec.carbon.policy)
        made = replace(made, basis=basis_of(framing, made.slots))
    except InputError as fault:
        raise InputError(f"{source}: {fault}") from None
    _budget(problem, source)
    if made.misses_deadline and measured(framing):
        raise InputError(
            f"{source}: carbon.finish_by: {iso(due)} cannot be met, the earliest finish is {iso(made.finish_at)}; "
            "give that or a later time, or wider windows"
        )
    return made


def _budget(problem: Problem, source: str) -> None:
    """Refuse a job whose cheapest plan by the deadline exceeds its budget, once jobs like it are measured."""
    if problem.budget_g is None or problem.basis == "assumed":
        return
    cheapest = plan(replace(problem, budget_g=None), "optimal")
    if cheapest.emissions_g > problem.budget_g:
        raise InputError(
            f"{source}: carbon.budget: {problem.budget_g:.3g} g do not suffice, the cheapest plan by finish_by emits "
            f"{cheapest.emissions_g:.3g} g; give more, or a later finish_by, or more zones"
        )


def _windows(spec: JobSpec, start: datetime, end: datetime, source: str) -> tuple[tuple[datetime, datetime], ...]:
    try:
        return windows(spec.carbon.windows, start, end)
    except InputError as fault:
        raise InputError(f"{source}: {fault}") from None


def _known_features(spec: JobSpec, source: str) -> None:
    if spec.job == "compress":
        raise InputError(f"{source}: job: {spec.job} is not supported yet; use train, distill or script")
    if spec.carbon.policy not in POLICIES:
        valid = ", ".join(POLICIES)
        raise InputError(f"{source}: carbon.policy: {spec.carbon.policy} is not supported yet; use one of {valid}")
    document = spec.to_json()
    for field, instead in LATER.items():
        section, _, key = field.rpartition(".")
        holder = document.get(section, {}) if section else document
        if holder.get(key) is not None:
            raise InputError(f"{source}: {field} is not supported yet; remove it and use {instead}")


def _room(spec: JobSpec, site: Site, source: str) -> None:
    """A job that fits in none of its zones, by what the site declares, could never run."""
    if not site.zones_for(spec):
        fewest = min(spec.worker_counts())
        zones, needed = spec.carbon.zones or list(site.zones), fewest * spec.workers.gpus
        most = max(site.zones[zone].gpus or 0 for zone in zones)
        raise InputError(
            f"{source}: workers: {fewest} workers of {spec.workers.gpus} GPUs need {needed}, "
            f"the site declares at most {most} in {', '.join(zones)}; lower workers.count or workers.gpus"
        )


def _signals(spec: JobSpec, site: Site, source: str) -> None:
    """Zones that a job may choose among tell one kind of intensity; a bound on the share needs a zone that tells it.

    Known from the providers alone, before any has been asked. Whoever submits may not hold the keys of them all: a
    zone whose providers cannot be made here is left to the controller, which never compares kinds either.
    """
    zones, told = site.zones_for(spec), Signals.of(site)
    if len(zones) > 1:
        for purpose in PURPOSES:
            chains = {zone: chain for zone in zones if (chain := _chain(told, zone, purpose)) is not None}
            _alike({zone: chain.signals for zone, chain in chains.items()}, purpose, spec, source)
    if spec.carbon.min_renewable_percent is not None:
        planning = [_chain(told, zone, "plan") for zone in zones]
        if not any(chain is None or chain.has_renewable for chain in planning):
            raise InputError(
                f"{source}: carbon.min_renewable_percent: no provider of {', '.join(zones)} tells the renewable share; "
                "name a zone whose provider does, or remove it and use carbon.max_intensity"
            )


def _alike(kinds: Mapping[str, frozenset[Signal]], purpose: Purpose, spec: JobSpec, source: str) -> None:
    zones_of: dict[str, list[str]] = {}
    for zone, signals in kinds.items():
        zones_of.setdefault(" or ".join(sorted(signals)), []).append(zone)
    if len(zones_of) < 2:
        return
    whose = "they" if spec.carbon.zones else "is missing, and the site's zones"
    does = {"plan": "plan", "charge": "are charged"}[purpose]
    told = " and ".join(f"{kind} ({', '.join(zones)})" for kind, zones in zones_of.items())
    fix = " or ".join(f"[{', '.join(zones)}]" for zones in zones_of.values())
    raise InputError(
        f"{source}: carbon.zones: {whose} {does} by different intensities, {told}, which are never compared; name "
        f"zones of one kind: {fix}"
    )


def _chain(told: Signals, zone: str, purpose: Purpose) -> Chain | None:
    try:
        return told.chain(zone, purpose)
    except InputError:
        return None


def _names(site: Site) -> str:
    return ", ".join(site.zones)
