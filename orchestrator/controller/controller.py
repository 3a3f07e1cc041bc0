"""The controller: look, decide, act, again and again; each pass may be the last, and the next goes on from there.
In: the store, the site and a cluster. Out: segments that follow the plans, facts in the store.
`serve`, `tick`, `window` and `run` drive it; forecasts come into the store beside it, for nothing in a pass is slow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from sqlalchemy.orm import Session

from cluster.api import Cluster
from jobs.spec import InputError, JobSpec, Unavailable
from orchestrator.controller.act import act
from orchestrator.controller.asleep import Glance, Sleepers, Waking
from orchestrator.controller.capacity import Capacity
from orchestrator.controller.consider import consider
from orchestrator.controller.effort import Effort, undisturbed
from orchestrator.controller.figures import Figures
from orchestrator.controller.gauges import gauges
from orchestrator.controller.look import SHOWN_TO_S, Look, glance, look_at
from orchestrator.controller.observe import observe
from orchestrator.controller.reach import Reach
from orchestrator.controller.room import Room
from orchestrator.controller.write import Order, Verdict, set_aside, stands, write_all
from orchestrator.site import Site
from orchestrator.store import Store, fleets, lease
from orchestrator.store.fleets import kind_of
from orchestrator.store.jobs import jobs_of
from orchestrator.store.schema import Job

log = logging.getLogger(__name__)

_AT_ONCE = 50
"""Waiting jobs that are read and considered together, until the pass has done so for long enough."""


def utcnow() -> datetime:
    """The machine's clock: the only one in the product but for `simulate`."""
    return datetime.now(timezone.utc)


class Controller:
    """One controller of one site; `attach` is called when there is something to do on the cluster.

    `visit` is called where all there is to do is to take rows; by default it is `attach`.
    """

    def __init__(
        self,
        store: Store,
        site: Site,
        attach: Callable[[], Cluster],
        clock: Callable[[], datetime] = utcnow,
        holder: str | None = None,
        visit: Callable[[], Cluster] | None = None,
    ) -> None:
        self._store, self._site, self._clock = store, site, clock
        self._reach = Reach(attach, visit)
        self._holder = holder or lease.this_process()
        self._capacity = Capacity()
        self._sleepers = Sleepers()
        self._figures = Figures()
        self._specs: Mapping[str, JobSpec] = {}
        """Of the jobs that the last pass considered at once."""
        self._put_off: Mapping[str, int] = {}
        """Those of them whose turn to be planned had not come, in so many passes."""
        self._epoch = 0

    def hold(self) -> None:
        """Take the lease before the pass, for what shall be done once by who controls. Raises lease.Held."""
        with self._store.write() as session:
            lease.take(session, self._holder, self._clock())

    def run_pass(self, window_end: datetime | None = None) -> bool:
        """One pass; returns True while some job has not ended. Raises lease.Held where another one controls.

        `window_end` is that of `lowtide window`: nothing is planned past it.
        """
        with undisturbed():
            return self._pass(window_end)

    def _pass(self, window_end: datetime | None) -> bool:
        now, began_s = self._clock(), time.monotonic()
        with self._store.write() as session:
            self._epoch = lease.take(session, self._holder, now)
        trouble = observe(self._store, self._site, self._reach, self._writing, now)
        with self._store.read() as session:
            seen, waking, glances = glance(session, self._site, now, self._sleepers, window_end, self._specs)
        if trouble:
            self._explain(seen, trouble)
        else:
            orders = self._decide(seen, waking, glances, window_end, began_s)
            act(orders, self._reach, self._writing, self._clock)
        self._note(seen, now)
        self._publish(now)
        return bool(glances)

    def release(self) -> None:
        """Give the lease back, so that the next controller need not wait for its end."""
        with self._store.write() as session:
            lease.release(session, self._holder, self._clock())

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction of this pass; lease.Held where another controller has taken over since it began."""
        with self._store.write() as session:
            lease.check(session, self._holder, self._epoch)
            yield session

    def _explain(self, seen: Look, trouble: str) -> None:
        with self._writing() as session:
            for job in seen.jobs:
                if seen.running(job.id) is not None:
                    session.get_one(Job, job.id).reason = trouble

    def _decide(
        self,
        seen: Look,
        waking: Waking,
        glances: Mapping[str, Glance],
        window_end: datetime | None,
        began_s: float,
    ) -> list[Order]:
        """Consider the jobs that do not sleep, and write what was decided before any of it is carried out."""
        room = Room(self._reach.nodes)
        for job in seen.jobs:
            segment = seen.running(job.id)
            if segment is not None and not segment.holds_room:
                room.pending(segment.zone, segment.workers, seen.spec_of(job).workers)
        # Who has waited longest to be planned anew comes first; what runs takes no room from each other.
        seen = replace(seen, jobs=sorted(seen.jobs, key=lambda job: -self._put_off.get(job.id, 0)))
        effort = Effort(began_s)
        orders = self._write(self._consider(seen, glances, room, effort, window_end))
        self._specs = {job.id: seen.spec_of(job) for job in seen.jobs}
        self._put_off = {job_id: self._put_off.get(job_id, 0) + 1 for job_id in effort.put_off}
        effort = Effort(began_s)
        for ids in self._waiting(waking, room):
            with self._store.read() as session:
                others = look_at(session, self._site, seen, jobs_of(session, ids))
            seen = replace(seen, learned=others.learned, told_of=others.told_of)
            orders += self._write(self._consider(others, glances, room, effort, window_end))
            if effort.over:
                break
        return orders

    def _write(self, changing: Sequence[Verdict]) -> list[Order]:
        """Write what was decided of some jobs; returns what follows from it."""
        if not changing:
            return []
        # Not the pass's beginning: where it has just started the embedded Ray, that was seconds ago, and a segment's
        # start would seem to cost them.
        now = self._clock()
        with self._writing() as session:
            return write_all(session, changing, self._site, self._epoch, now)

    def _waiting(self, waking: Waking, room: Room) -> Iterator[list[str]]:
        """Jobs that wait and do not sleep, some at a time: whose hour has come, who has room now, then all others."""
        queue = [*waking.due, *self._sleepers.with_room(room), *waking.later]
        ids = list(dict.fromkeys(queue))
        for first in range(0, len(ids), _AT_ONCE):
            yield ids[first : first + _AT_ONCE]

    def _consider(
        self,
        seen: Look,
        glances: Mapping[str, Glance],
        room: Room,
        effort: Effort,
        window_end: datetime | None,
    ) -> list[Verdict]:
        """The verdicts on these jobs that change something; who has nothing to do sleeps."""
        changing, aside = [], list(seen.unreadable)
        for job in seen.jobs:
            try:
                verdict = consider(seen, job, self._site, room, effort, window_end)
            except Unavailable:
                raise
            except Exception as fault:  # the job's edge: others are not to wait until this one is understood
                aside.append((job, _told(job, fault)))
                continue
            if not stands(verdict, job, seen.running(job.id), self._site, seen.now):
                changing.append(verdict)
            elif verdict.rest is not None:
                fleet = kind_of(job.planned_for)
                self._sleepers.rest(glances[job.id], verdict.rest, fleet if fleet in seen.fleets else None)
        self._set_aside(aside)
        return changing

    def _set_aside(self, jobs: Sequence[tuple[Job, str]]) -> None:
        """Write why nothing can be decided for these jobs, where that is new."""
        new = [(job, why) for job, why in jobs if why != job.reason or job.wish == "cancel"]
        if not new:
            return
        with self._writing() as session:
            for job, why in new:
                set_aside(session, job.id, why, self._clock())

    def _note(self, seen: Look, now: datetime) -> None:
        """Write down what the zones have for jobs, where this pass has attached to the cluster and it has changed."""
        if self._reach.attached is None:
            return
        try:
            shown = self._capacity.read(self._reach.nodes(), seen)
        except Unavailable as fault:
            log.warning("%s", fault)
            return
        with self._store.read() as session:
            # What was written long ago is written anew, for nobody trusts it any more.
            known = fleets.capacities(session, now - timedelta(seconds=SHOWN_TO_S / 2))
        if shown != known:
            with self._writing() as session:
                fleets.keep_capacities(session, shown, now)

    def _publish(self, now: datetime) -> None:
        """Send the pass's figures to the cluster's metrics, where this pass has attached to it."""
        if self._reach.attached is None:
            return
        with self._store.read() as session:
            figures = gauges(session, self._site, now, self._figures)
        try:
            self._reach.attached.publish(figures)
        except Unavailable as fault:
            self._reach.drop()
            log.warning("metrics: %s", fault)


def _told(job: Job, fault: Exception) -> str:
    """Why nothing can be decided for a job, in one line; of a bug the log has the rest, once."""
    if isinstance(fault, InputError):
        return str(fault)
    why = f"nothing can be decided for it ({type(fault).__name__}: {fault}); the controller's log has more"
    if why != job.reason:
        log.error("%s: %s", job.id, why, exc_info=fault)
    return why
