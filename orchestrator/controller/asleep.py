"""Jobs that a pass need not look at: they wait, and nothing that they wait for has come.
In: a few columns of each job, what else a verdict depends on, and the room there is. Out: who is to be considered.
A controller remembers it from pass to pass, so that a pass over ten thousand waiting jobs looks at those that change.

A job sleeps from the pass that finds nothing to do for it: until its plan, a window or a wish says otherwise, its
forecast or what was measured of jobs like it changes, or where its hour has come and it waits for room, there is some.
One that is planned together with others sleeps through new forecasts and figures: its planner wakes it by a new plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from jobs.spec import Unavailable
from jobs.spec.job import Workers
from orchestrator.controller.learn import Learned
from orchestrator.controller.room import Room
from orchestrator.controller.told import Told, told

Versions = Mapping[str, str]

_WAITS = {("run", state) for state in ("queued", "waiting", "paused")} | {("hold", "paused")}
"""Wish and state of a job that may sleep."""


class Glance(NamedTuple):
    """What a pass reads of each job, be it asleep or not."""

    id: str
    likeness: str
    told: tuple[Any, ...]
    """Wish, state, and whatever else decides: unchanged, the job is as it was."""


class Wants(NamedTuple):
    """The least room with which a job that waits for some could start."""

    zones: tuple[str, ...]
    workers: int
    each: Workers


@dataclass(frozen=True)
class Rest:
    """How long a verdict stands, where nothing else changes."""

    until: datetime
    wants: Wants | None = None
    """What it waits for besides; None where only time can tell."""


@dataclass(frozen=True)
class _Asleep:
    glance: Glance
    rest: Rest
    fleet: str | None
    """What the fleet shares that its plan is of."""


class Waking(NamedTuple):
    """Who is to be considered in a pass: ids in the order of the glances."""

    now: list[str]
    """What runs, and whom a user has told something: at once."""
    due: list[str]
    """Those whose hour has come, as soon as the pass has time."""
    later: list[str]
    """New ones, and those to be planned anew: a few in each pass."""


@dataclass
class Sleepers:
    """Who sleeps, and what all verdicts depended on."""

    _asleep: dict[str, _Asleep] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)
    """Those that are to be planned anew, and sleep on until it is their turn."""
    _versions: Versions = field(default_factory=dict)
    _told: dict[str, Told] = field(default_factory=dict)
    """By likeness."""
    _window_end: datetime | None = None
    _seen_at: datetime | None = None
    """When the last pass was."""
    awake_likenesses: set[str] = field(default_factory=set)
    """Of the jobs that the last pass considered at once."""

    def begin(self, versions: Versions, window_end: datetime | None) -> None:
        """Another pass begins: with another forecast, or window, all are to be planned anew."""
        if versions.keys() != self._versions.keys() or window_end != self._window_end:
            self._stale = set(self._asleep)
        elif versions != self._versions:
            self._stale |= {job_id for job_id, each in self._asleep.items() if each.fleet is None}
        self._versions, self._window_end = versions, window_end

    def awake(self, glances: Iterable[Glance], now: datetime, fleets: Iterable[str]) -> Waking:
        """Those that do not sleep; who sleeps for want of room is asked for by `with_room`."""
        if self._seen_at is not None and now < self._seen_at:
            self._asleep = {}  # the clock was set back: the hours until which they were to sleep are too late
        self._seen_at = now
        seen, found, asleep, likenesses = set(fleets), Waking([], [], []), dict[str, _Asleep](), set[str]()
        for glance in glances:
            likenesses.add(glance.likeness)
            before = self._asleep.get(glance.id)
            if glance.told[:2] not in _WAITS:
                found.now.append(glance.id)
            elif before is None:
                found.later.append(glance.id)
            elif before.glance != glance:
                found.due.append(glance.id)
            else:
                asleep[glance.id] = before
                if now >= before.rest.until or (before.fleet is not None and before.fleet not in seen):
                    found.due.append(glance.id)
                elif glance.id in self._stale:
                    found.later.append(glance.id)
        self._asleep = asleep
        self._stale &= asleep.keys()
        self._told = {likeness: each for likeness, each in self._told.items() if likeness in likenesses}
        return found

    def learned_anew(self, learned: Mapping[str, Learned]) -> dict[str, str]:
        """With something else measured of jobs like them, those that sleep are to be planned anew, too.

        Returns a digest of what is told of each likeness: what has hardly moved since is not told anew.
        """
        before = self._told
        self._told = {**before, **{likeness: told(each, before.get(likeness)) for likeness, each in learned.items()}}
        new = {likeness for likeness in learned if likeness in before and self._told[likeness] is not before[likeness]}
        of_fleets = {likeness for likeness in new if self._told[likeness].modes != before[likeness].modes}
        for job_id, each in self._asleep.items() if new else ():
            if each.glance.likeness in (new if each.fleet is None else of_fleets):
                self._stale.add(job_id)
        return {likeness: each.digest for likeness, each in self._told.items()}

    def with_room(self, room: Room) -> list[str]:
        """Those for which there is room now, each beside those before it."""
        wanting = [(job_id, each.rest.wants) for job_id, each in self._asleep.items() if each.rest.wants is not None]
        if not wanting:
            return []
        try:
            free = room.copy()
            woken, full = [], set[tuple[object, ...]]()
            for job_id, wants in wanting:
                each = (wants.workers, wants.each.gpus, wants.each.gpu_kind, wants.each.cpus)
                for zone in wants.zones:
                    if (zone, each) in full:
                        continue
                    if not free.take(zone, wants.workers, wants.each):
                        woken.append(job_id)
                        break
                    full.add((zone, each))
        except Unavailable:
            return []
        return woken

    def rest(self, glance: Glance, rest: Rest, fleet: str | None) -> None:
        """Nothing is to do for the job so long."""
        self._asleep[glance.id] = _Asleep(glance, rest, fleet)
        self._stale.discard(glance.id)
