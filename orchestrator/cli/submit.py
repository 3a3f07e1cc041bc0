"""The commands that put wishes into the store: submit, plan (the dry run), pause, resume, cancel.
In: a spec file or a job's name. Out: a stored job or wish, or a plan shown and nothing stored.
The next pass of a controller acts on them.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.spec import JobSpec, Unavailable, iso, read_spec
from jobs.spec.code import pack
from orchestrator.admission import admit, admit_time, remarks
from orchestrator.cli.desk import Desk, desk, print_json
from orchestrator.controller import utcnow
from orchestrator.controller.frame import Framing, deadline, frame, modes_of, opening
from orchestrator.controller.learn import learn
from orchestrator.controller.outlook import curves_of
from orchestrator.plan.problem import Plan, Problem
from orchestrator.plan.record import document
from orchestrator.planner import beside
from orchestrator.refresh import fetch
from orchestrator.report.words import length
from orchestrator.signal.forecast import Forecast
from orchestrator.store import forecasts, jobs
from orchestrator.store.schema import Job


def submit(site_file: Path | None, spec_file: Path, as_json: bool) -> None:
    """Store a valid spec as a job."""
    with desk(site_file) as at:
        job = admit_and_store(at, spec_file)
        if as_json:
            print_json({"job": job.id, "state": job.state})
            return
        print(f"{job.id} is queued")
        print("`lowtide serve`, `tick` or `window` will run it; `lowtide status` shows how it stands")


def admit_and_store(at: Desk, spec_file: Path) -> Job:
    """Read, check and store a spec; InputError, and nothing stored, where it cannot run here."""
    now = utcnow()
    spec = read_spec(spec_file)
    admit(spec, at.site, str(spec_file))
    with at.store.read() as session:
        # Only what is known already: a submission never waits for a provider.
        framing = _framing(at, spec, now, forecasts.newest(session))
    admit_time(framing, at.site, str(spec_file))
    if spec.working_dir is not None:  # what waits and resumes runs the code of now
        code = pack(Path(spec.working_dir), at.site.state / "code")
        spec = spec.model_copy(update={"working_dir": str(code)})
    with at.store.write() as session:
        job = jobs.submit(session, spec, now)
        for text in remarks(spec):
            print(f"{spec_file}: {text}", file=sys.stderr)
            jobs.note(session, job, now, text)
        return job


def plan(site_file: Path | None, spec_file: Path, as_json: bool) -> None:
    """Show the plan that the spec would get now."""
    with desk(site_file) as at:
        now = utcnow()
        spec = read_spec(spec_file)
        admit(spec, at.site, str(spec_file))
        framing = _framing(at, spec, now, fetch(at.store, at.site))
        made = admit_time(framing, at.site, str(spec_file))
        for text in remarks(spec):
            print(f"{spec_file}: {text}", file=sys.stderr)
        if made is None:
            raise Unavailable(f"no provider of {', '.join(framing.zones)} answers, and no earlier answer is kept")
        fleet = None
        problem = frame(framing, opening(framing).spans, at.site)
        if isinstance(problem, Problem) and (planned := beside(at.store, at.site, spec, problem, now)) is not None:
            made, fleet = planned
        if as_json:
            print_json({**document(made, spec.name), "fleet": fleet})
        else:
            _show(made, framing)
            if fleet is not None:
                from orchestrator.cli.show import shared

                print(shared(fleet))


def ask(site_file: Path | None, name: str, wanted: str) -> None:
    """Record a wish for a job: run, hold or cancel."""
    with desk(site_file) as at, at.store.write() as session:
        job = jobs.find(session, name)
        jobs.wish(session, job, wanted, utcnow())
        told = {"run": "goes on when its plan says so", "hold": "pauses at its next step", "cancel": "is cancelled"}
        print(f"{job.id} {told[wanted]}, at the next pass of a controller")


def _framing(at: Desk, spec: JobSpec, now: datetime, forecasts: dict[str, Forecast]) -> Framing:
    with at.store.read() as session:
        learned = learn(session, jobs.likeness(spec))
    return Framing(
        spec=spec,
        submitted_at=now,
        now=now,
        step=0,
        steps=spec.training.steps if spec.training else None,
        learned=learned,
        curves=curves_of(forecasts),
        modes=modes_of(spec, at.site),
        current=None,
        has_run=False,
        last_zone=None,
        window_end=None,
    )


def _show(made: Plan, framing: Framing) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"policy {made.policy}, basis {made.basis}: {made.reason}")
    table = Table("start", "end", "zone", "workers")
    for slot in made.slots:
        table.add_row(iso(slot.start), iso(slot.end), slot.zone, str(slot.workers))
    console.print(table)
    late = " [red](misses the deadline)[/red]" if made.misses_deadline else ""
    console.print(f"finishes {iso(made.finish_at)}, due {iso(deadline(framing))}{late}")
    figures: dict[str, Any] = {"planned": made.emissions_g, "run-now": made.run_now_emissions_g}
    console.print(", ".join(f"{name} {grams:.3g} g" for name, grams in figures.items()), end="")
    console.print(f": saves {made.saved_percent:.0f} %")
    if made.unknown_s:
        console.print(f"{length(made.unknown_s)} of it at an unknown intensity, priced at the worst that is known")
    if made.basis == "assumed":
        console.print("Nobody has measured a job like this one: length and watts are assumed until it has run.")
