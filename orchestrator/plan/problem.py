"""What a planner is asked and what it answers, as values: no clock, no Ray, no HTTP.
In: the work left, the deadline, zones with their curves and operating points, pause costs. Out: a Plan.
The policies turn one into the other; the controller acts on the plan's current slot.

Unknown is never zero. Time whose intensity is not known costs as much as the zone's worst known intensity: it is never
preferred over a known cleaner time, it is used where even that is the least, and its seconds are `Plan.unknown_s`.

Two bounds are the user's: `max_g_per_kwh` and `min_renewable_percent`. A plan stays within them where it can meet the
deadline so. Where it cannot, it also uses time that is not known to lie within them (its renewable share is not known;
or its intensity is not, and the zone's worst is above the bound), and as little of it as it can. Only where that does
not suffice either it uses time outside, again as little as it can: the deadline always wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Literal

Basis = Literal["measured", "assumed"]
Mode = tuple[int, int | None]
"""How wide a segment runs, and under which power limit: workers and W per GPU (None is no limit of ours)."""


@dataclass(frozen=True)
class OperatingPoint:
    """A way to run: workers (and a power limit), with measured throughput and power of all workers together."""

    workers: int
    steps_per_s: float
    power_w: float
    power_limit_w: int | None = None
    """Of each GPU; None is the limit that it has by itself."""

    @property
    def mode(self) -> Mode:
        """Workers and power limit."""
        return self.workers, self.power_limit_w


@dataclass(frozen=True)
class PauseCost:
    """What a start after the first costs; each is time without progress, at the power of the point that starts."""

    resume_s: float = 0.0
    """From the order to the first step, and from the stop to the released GPUs, together."""
    move_s: float = 0.0
    """More of it where the segment starts in another zone than the one before."""


@dataclass(frozen=True)
class Stretch:
    """Intensity and renewable share of one zone in [start, end); None is unknown."""

    start: datetime
    end: datetime
    g_per_kwh: float | None
    renewable_percent: float | None = None
    spread_g_per_kwh: float = 0.0
    """Half of the 80 % prediction interval; 0 where none is given."""


@dataclass(frozen=True)
class ZoneOption:
    """A zone where the job may run."""

    curve: tuple[Stretch, ...]
    points: tuple[OperatingPoint, ...]
    pue: float = 1.0
    stale_since: datetime | None = None
    """When the curve was fetched, where its provider has failed since; the plan's reason says so."""
    full: tuple[tuple[datetime, datetime], ...] = ()
    """When other jobs have the room that this one needs, half-open: a plan that can meet the deadline runs besides."""


@dataclass(frozen=True)
class Current:
    """The segment that runs as the plan is made: going on in the same zone and mode costs no start."""

    zone: str
    workers: int
    ran_s: float = inf
    """How long it has run; `min_run_s` counts from its beginning."""
    go_on_s: float = 0.0
    """How much longer it shall run at least, whatever `min_run_s` says."""
    power_limit_w: int | None = None

    @property
    def mode(self) -> Mode:
        """Workers and power limit."""
        return self.workers, self.power_limit_w


@dataclass(frozen=True)
class Problem:
    """One job, as the planner sees it at `now`."""

    now: datetime
    deadline: datetime
    work_steps: float
    zones: Mapping[str, ZoneOption]
    slot_s: float
    pause: PauseCost = PauseCost()
    windows: tuple[tuple[datetime, datetime], ...] | None = None
    """Where the job may run, half-open; None is always."""
    current: Current | None = None
    started: bool = False
    """True where the next start costs what any start costs; False leaves the very first one out, as simulations do."""
    max_g_per_kwh: float | None = None
    """Never start above it unless the deadline asks for it."""
    min_renewable_percent: float | None = None
    """Likewise never start below it."""
    basis: Basis = "measured"
    last_zone: str | None = None
    """Where the last segment ran, while none runs: a start elsewhere is a move. None charges no move."""
    min_run_s: float = 0.0
    """How long a segment runs at least; see `rules`."""
    max_pauses: int | None = None
    """How many pauses may still come; None is any number. See `rules`."""
    budget_g: float | None = None
    """What the rest of the job may emit; None is anything. See `budget`."""
    spare_s: float = 0.0
    """How long before the deadline a plan is done where it can be, as speeds vary; the deadline itself is later."""

    @property
    def owed_s(self) -> float:
        """How long what runs must still run."""
        current = self.current
        return max(0.0, self.min_run_s - current.ran_s, current.go_on_s) if current is not None else 0.0


@dataclass(frozen=True)
class PlannedSlot:
    """Run at this width in this zone in [start, end); pause costs are inside it."""

    start: datetime
    end: datetime
    zone: str
    workers: int
    power_limit_w: int | None = None

    @property
    def mode(self) -> Mode:
        """Workers and power limit."""
        return self.workers, self.power_limit_w


@dataclass(frozen=True)
class Observed:
    """What planning would have done for a job that runs at once (policy `observe`), and what running at once does."""

    basis: Basis
    slots: tuple[PlannedSlot, ...]
    emissions_g: float
    energy_j: float
    now_emissions_g: float
    now_energy_j: float

    @property
    def saved_percent(self) -> float:
        """Share of the emissions of running at once that the plan would have saved, by the forecast it was made by."""
        base = self.now_emissions_g
        return 100.0 * (base - self.emissions_g) / base if base else 0.0


@dataclass(frozen=True)
class Plan:
    """Slots in order, without overlap, adjacent ones of one zone and mode joined."""

    policy: str
    basis: Basis
    slots: tuple[PlannedSlot, ...]
    finish_at: datetime
    emissions_g: float
    energy_j: float
    run_now_emissions_g: float
    """The fixed zone and width that emits least when started at `now` and never paused."""
    misses_deadline: bool = False
    """True where no plan meets the deadline: this one is then as soon as possible."""
    unknown_s: float = 0.0
    """Seconds of the plan whose intensity is not known; they are priced at the zone's worst known intensity."""
    reason: str = ""
    """Why the job runs or waits at `now`, for people."""
    observed: Observed | None = None
    """Of policy `observe` alone."""

    def at(self, moment: datetime) -> PlannedSlot | None:
        """The slot that holds `moment`; None where the plan pauses."""
        return next((slot for slot in self.slots if slot.start <= moment < slot.end), None)

    @property
    def saved_percent(self) -> float:
        """Share of run-now's emissions that the plan saves; negative where it emits more."""
        base = self.run_now_emissions_g
        return 100.0 * (base - self.emissions_g) / base if base else 0.0
