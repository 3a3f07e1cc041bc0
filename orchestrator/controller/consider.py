"""One job, considered at one moment: framed, planned, decided.
In: a Look and a job in it. Out: a Verdict, ready to be written.
The controller considers every job of a pass, the more important first, so that they get the room.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from math import inf

from jobs.spec import InputError, JobSpec, Unavailable
from orchestrator.controller.asleep import Rest, Wants
from orchestrator.controller.decide import Case, Decision, Go, Running, Wait, decide
from orchestrator.controller.effort import Effort
from orchestrator.controller.frame import Framing, Opening, basis_of, frame, measured, modes_of, opening, to_measure
from orchestrator.controller.look import Look
from orchestrator.controller.pools import ever, never
from orchestrator.controller.room import Room
from orchestrator.controller.settle import cause_of, retry_at, retry_text
from orchestrator.controller.share import TOGETHER
from orchestrator.controller.stuck import stuck
from orchestrator.controller.told import digest
from orchestrator.controller.write import Verdict
from orchestrator.plan import plan
from orchestrator.plan.observe import observed, observing
from orchestrator.plan.problem import Current, Mode, Plan, Problem
from orchestrator.plan.record import document, observed_in, read
from orchestrator.site import Site
from orchestrator.store.fleets import kind_of
from orchestrator.store.schema import Job, Segment

NEW = "is about to be planned together with the jobs that want the same room"
FIRST_S = 120.0
"""A new job waits so long at most to be planned together with those that want the same room."""
UNPLANNED = ("now", "observe")
"""Policies that start at once: they need no calibration first."""
BLIND_S = 7 * 86400.0
"""How long a script that cannot save runs unrenewed: it would begin anew where a controller's silence ended it."""


def consider(look: Look, job: Job, site: Site, room: Room, effort: Effort, window_end: datetime | None) -> Verdict:
    """What shall happen to this job now. Takes room where it is to start."""
    spec, running = look.spec_of(job), look.running(job.id)
    # What runs grows, or moves, only into room that there is; what waits plans for room that may come.
    most = _most(spec, site, room, running) if running is not None else None
    verdict = _considered(look, job, spec, site, effort, window_end, most)
    full, nodes = _take(verdict.decision, spec, room)
    if not full:
        return replace(verdict, nodes=nodes)
    fitting = _most(spec, site, room, running)
    if fitting is not None and any(fitting.values()):
        # Another zone, or fewer workers, may have room now.
        other = _considered(look, job, spec, site, effort, window_end, fitting)
        if isinstance(other.decision, Go):
            still_full, nodes = _take(other.decision, spec, room)
            if not still_full:
                return replace(other, nodes=nodes)
    return replace(
        verdict,
        decision=Wait("paused" if job.id in look.segments else "waiting", full),
        rest=verdict.rest and replace(verdict.rest, wants=_wants(spec, site)),
    )


def _considered(
    look: Look,
    job: Job,
    spec: JobSpec,
    site: Site,
    effort: Effort,
    window_end: datetime | None,
    most: Mapping[str, int] | None,
) -> Verdict:
    framing = framing_of(look, job, spec, site, window_end, most)
    when = opening(framing)
    problem = frame(framing, when.spans, site)
    made: Plan | None = None
    planned_for: str | None = None
    lacking = never(site.zones_for(spec), spec, look.shown) if not framing.zones else ""
    if job.wish != "run":
        blocked = "is not to run"
    elif lacking:
        blocked = lacking
    elif isinstance(problem, Problem) and _is_new_to_fleet(look, job, spec):
        blocked = NEW
    elif isinstance(problem, Problem) and not _finishing(framing):
        blocked = "waits for its turn to be planned"
        try:
            made, planned_for = _plan(look, job, framing, problem, effort)
            made = made and replace(made, basis=basis_of(framing, made.slots))
        except InputError as fault:
            # Admitted when it could run, and now it cannot: its windows are too short for a start, say.
            blocked = str(fault)
    else:
        blocked = problem if isinstance(problem, str) else "every step is done"
    decision = decide(_case(look, job, site, framing, when, made, blocked))
    made_for = document(made, job.id) if made else None
    rest = None
    if framing.current is None and job.id not in effort.put_off and blocked != NEW:
        rest = Rest(_stands_until(look.now, site, job, made, when))
    return Verdict(job.id, spec, decision, made_for, planned_for, rest)


def _stands_until(now: datetime, site: Site, job: Job, made: Plan | None, when: Opening) -> datetime:
    """When time alone may change what a waiting job is to do: a slot or window begins or ends, or a back-off does."""
    if job.wish != "run":
        return now + timedelta(days=1)
    edges = [edge for slot in made.slots for edge in (slot.start, slot.end)] if made is not None else []
    edges += [edge for span in when.spans or () for edge in span]
    edges += [edge for edge in (when.closes_at, retry_at(job, None, now)) if edge is not None]
    # Without a plan nothing is known of what comes: the next slot will see.
    edges.append(site.slot_start(now) + timedelta(seconds=site.slot_s) if made is None else now + timedelta(days=1))
    return min(edge for edge in edges if edge > now)


def _wants(spec: JobSpec, site: Site) -> Wants:
    return Wants(tuple(site.zones_for(spec)), min(spec.worker_counts()), spec.workers)


def framing_of(
    look: Look,
    job: Job,
    spec: JobSpec,
    site: Site,
    window_end: datetime | None,
    most: Mapping[str, int] | None = None,
) -> Framing:
    """The job as the planner's frame takes it; `most` is how many workers its zones have room for, where known."""
    running = look.running(job.id)
    if running is None:  # what runs holds its room, whatever was seen of it
        there = ever(site.zones_for(spec), spec.workers, look.shown)
        most = {zone: min(count, there.get(zone, count)) for zone, count in (most or there).items()}
    return Framing(
        spec=spec,
        submitted_at=job.submitted_at,
        now=look.now,
        step=job.step,
        steps=job.steps or (spec.training.steps if spec.training else None),
        learned=look.learned[job.likeness],
        curves=look.curves,
        modes=modes_of(spec, site, most, any(s.power_limit_refused for s in look.segments.get(job.id, ()))),
        current=_current(running, look.now) if running else None,
        calibrates=running is not None and running.reason == "calibrate",
        emitted_g=look.emitted_g.get(job.id, 0.0),
        pauses=sum(s.ended == "paused" and s.reason != "calibrate" for s in look.segments.get(job.id, ())),
        has_run=bool(look.segments.get(job.id)),
        last_zone=job.zone,
        window_end=window_end,
        tried=frozenset(s.mode for s in look.segments.get(job.id, ()) if s.reason == "calibrate"),
    )


def _current(running: Segment, now: datetime) -> Current:
    """What runs, and for how long; a calibration is done whenever it is."""
    ran_s = inf if running.reason == "calibrate" else max(0.0, (now - running.ordered_at).total_seconds())
    return Current(running.zone, running.workers, ran_s, power_limit_w=running.ran_as[1])


def _plan(look: Look, job: Job, framing: Framing, problem: Problem, effort: Effort) -> tuple[Plan | None, str | None]:
    """A new plan, and a digest of what it was made from; the standing one while that is so.

    A plan goes on along its own way, so making it anew from the same facts says nothing new; that of a running job is
    made anew in each slot, for how far the job has come. When a new forecast makes a thousand jobs plan anew, they take
    their turns over several passes. A job that is planned together with others keeps that plan, running or not, while
    its planner sees to it.
    """
    if (fleets := _of_fleet(look, job)) is not None:
        return fleets, job.planned_for
    zones = sorted(problem.zones)
    current = framing.current
    runs = (current.zone, current.mode, int(look.now.timestamp() // problem.slot_s)) if current is not None else None
    made_from: tuple[object, ...] = (
        framing.step if current is None else runs,
        framing.steps,
        framing.modes,
        look.told_of[job.likeness],
        framing.window_end,
        framing.has_run,
        framing.pauses,
        framing.emitted_g,
    )
    if retry_at(job, framing.spec.not_before, look.now) != job.not_before:
        made_from = (*made_from, look.now)  # the clock was set back: what was to run at once is in the future now
    planned_for = digest((made_from, [(zone, look.versions[zone]) for zone in zones]))
    standing = read(job.plan) if job.plan is not None else None
    if standing is not None and standing.finish_at <= look.now:
        standing = None
    if standing is not None and job.planned_for == planned_for:
        return standing, planned_for
    if effort.spent and (current is None or (standing is not None and standing.at(look.now) is not None)):
        effort.put_off.add(job.id)
        return standing, job.planned_for
    with effort.planning():
        return _observing(job, framing, problem, plan(problem, framing.spec.carbon.policy)), planned_for


def _of_fleet(look: Look, job: Job) -> Plan | None:
    """The plan that was made for it and others together; None where nobody sees to that, or it has come to its end."""
    if job.plan is None or kind_of(job.planned_for) not in look.fleets:
        return None
    made = read(job.plan)
    return made if not made.slots or made.finish_at > look.now else None


def _is_new_to_fleet(look: Look, job: Job, spec: JobSpec) -> bool:
    """Whether its planner will see the job in a moment for the first time: it takes nothing from others until then."""
    fleet = look.fleets.get("gpus" if spec.workers.gpus else "cpus")
    return (
        fleet is not None
        and job.planned_for is None
        and spec.carbon.policy == TOGETHER
        and (look.now - job.submitted_at).total_seconds() < FIRST_S
        and not look.segments.get(job.id)
        and not set(fleet.zones).isdisjoint(spec.carbon.zones or fleet.zones)
    )


def _observing(job: Job, framing: Framing, problem: Problem, made: Plan) -> Plan:
    """With policy `observe`, what a plan would have saved: by the first plan, or the first whose figures are measured.

    After a start what is left to save is less than what there was.
    """
    if framing.spec.carbon.policy != "observe" or not framing.has_run:
        return made
    seen = observed_in(job.plan) if job.plan is not None else None
    if seen is None or (seen.basis, problem.basis) == ("assumed", "measured"):
        whole = float(framing.steps) if problem.basis == "measured" and framing.steps is not None else None
        seen = observed(problem, plan, whole)
    return observing(made, seen)


def _case(look: Look, job: Job, site: Site, framing: Framing, when: Opening, made: Plan | None, blocked: str) -> Case:
    running = look.running(job.id)
    ended = [segment for segment in look.segments.get(job.id, ()) if segment.ended is not None]
    last = ended[-1] if ended else None
    return Case(
        now=look.now,
        wish=job.wish,
        plan=made,
        blocked=blocked,
        running=_running(framing, running) if running else None,
        has_run=framing.has_run,
        measured=measured(framing) or framing.spec.carbon.policy in UNPLANNED or framing.spec.is_blind(),
        last_zone=last.zone if last else None,
        last_mode=last.ran_as if last else None,
        last_ended=last.ended if last else None,
        not_before=retry_at(job, framing.spec.not_before, look.now),
        renew_within_s=BLIND_S if framing.spec.is_blind() else site.renew_within_s,
        closes_at=when.closes_at,
        open=when.open,
        finishing=_finishing(framing),
        blind=framing.spec.is_blind(),
        stuck=_stuck(job, site, framing, running) if running else "",
        to_measure=_to_measure(framing, made),
        retry=retry_text(job, cause_of(last.error)) if last is not None and last.ended == "lost" else "",
    )


def _running(framing: Framing, segment: Segment) -> Running:
    return Running(segment.zone, segment.ran_as, segment.reason, segment.ran_as in framing.learned.points)


def _stuck(job: Job, site: Site, framing: Framing, segment: Segment) -> str:
    ending = job.state == "pausing"
    return stuck(segment, ending, framing.steps, framing.spec, framing.learned, site)


def _to_measure(framing: Framing, made: Plan | None) -> Mode | None:
    """What to measure first in the zone where the plan starts; nothing for policies that start at once."""
    if made is None or not made.slots or framing.spec.carbon.policy in UNPLANNED or framing.spec.is_blind():
        return None
    return to_measure(framing, made.slots[0].zone)


def _finishing(framing: Framing) -> bool:
    return framing.steps is not None and framing.step >= framing.steps


def _most(spec: JobSpec, site: Site, room: Room, running: Segment | None) -> Mapping[str, int] | None:
    """How many workers of the job each zone has room for, what it holds itself included.

    None where it has no choice, or the cluster does not answer.
    """
    zones = site.zones_for(spec)
    if len(zones) < 2 and len(spec.worker_counts()) < 2:
        return None
    try:
        fitting = {zone: room.fits(zone, spec.workers) for zone in zones}
    except Unavailable:
        return None
    if running is not None:
        fitting[running.zone] = fitting.get(running.zone, 0) + running.workers
    return fitting


def _take(decision: Decision, spec: JobSpec, room: Room) -> tuple[str, tuple[str, ...]]:
    """Take the room that a start needs; returns why there is none, or an empty text and the nodes."""
    if not isinstance(decision, Go) or decision.start is None:
        return "", ()
    missing = [name for name in spec.secrets if name not in os.environ]
    if missing:
        return f"waits for the secret {missing[0]}: it is not in the controller's environment; set it there", ()
    try:
        return room.place(decision.zone, decision.mode[0], spec.workers)
    except Unavailable as fault:
        return str(fault), ()
