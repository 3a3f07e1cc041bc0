"""The commands that read the store: status, logs, report; each as text for people or as JSON.
In: the store, and the cluster for the logs. Out: text or JSON on stdout, files where asked for.
They change nothing.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.spec import InputError, Unavailable, iso
from orchestrator.attach import attach_if_running
from orchestrator.cli.desk import Desk, desk, print_json
from orchestrator.controller import utcnow
from orchestrator.loggers import open_logger, run_of
from orchestrator.report import Report, as_json, codecarbon, draw, page, report_of, text
from orchestrator.report.export import write_csv, write_parquet
from orchestrator.report.words import grams
from orchestrator.site import Site
from orchestrator.status import ENDED_SHOWN, status_of_all
from orchestrator.status import status as status_of
from orchestrator.store import jobs
from orchestrator.store.accounts import account_of

_HEAD = ("job", "state", "step", "zone", "workers", "energy", "emissions", "next change", "why")
_NARROWEST = 20
"""Columns of a terminal that a reason is wrapped to, at least."""


def status(site_file: Path | None, name: str | None, as_json: bool, whole: bool = False) -> None:
    """One job, or those that have not ended and the newest that have (`whole`: all), each with the reason why."""
    left_out = 0
    with desk(site_file) as at, at.store.read() as session:
        if name is not None:
            documents = [status_of(session, at.site, jobs.find(session, name), utcnow())]
        else:
            documents, left_out = status_of_all(session, at.site, utcnow(), None if whole else ENDED_SHOWN)
    if left_out:
        print(f"{left_out} earlier jobs have ended; `lowtide status --all` shows them, too", file=sys.stderr)
    if as_json:
        print_json(documents)
    elif not documents:
        print("no job is stored yet; `lowtide submit SPEC` stores one")
    else:
        _status_table(documents)


def _status_table(documents: list[dict[str, Any]]) -> None:
    """A line a job; on a terminal its reason is wrapped, elsewhere it stays one line, for grep."""
    rows = [_HEAD, *map(_cells, documents)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    left = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() else 0
    for *cells, why in rows:
        first, *others = (textwrap.wrap(why, left) if left >= _NARROWEST else [why]) or [""]
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), first]).rstrip())
        for line in others:
            print(" " * indent + line)
    for fleet in {job["fleet"]["bound_g"]: job["fleet"] for job in documents if job["fleet"]}.values():
        print(f"\n{shared(fleet)}")


def _cells(job: dict[str, Any]) -> tuple[str, ...]:
    emitted_g = job["emissions_g"]
    return (
        job["job"],
        job["state"],
        f"{job['step']}/{job['steps'] or '?'}",
        job["zone"] or "",
        str(job["workers"] or ""),
        f"{job['energy_j'] / 1000:.1f} kJ",
        "" if emitted_g is None else f"{emitted_g:.3g} g",
        job["next_change_at"] or "",
        " ".join(job["reason"].split()),
    )


def shared(fleet: dict[str, Any]) -> str:
    """A fleet's figures in one line."""
    missed = ", ".join(fleet["missed"][:5]) + (", ..." if len(fleet["missed"]) > 5 else "")
    late = f"late: {missed}" if missed else "none is late"
    return (
        f"{fleet['jobs']} jobs that share room are planned together: {grams(fleet['emissions_g'])}, "
        f"at most {fleet['gap_percent']:.2f} % above the least there is; {late}"
    )


def logs(site_file: Path | None, name: str, follow: bool, as_json: bool) -> None:
    """The job's history, then what its newest segment wrote."""
    with desk(site_file) as at:
        with at.store.read() as session:
            job = jobs.find(session, name)
            history = jobs.history(session, job.id)
            segments = jobs.segments_of(session, job.id)
        if as_json:
            print_json([{"at": iso(event.at), "text": event.text} for event in history])
            return
        for event in history:
            print(f"{iso(event.at)}  {event.text}")
        if not segments:
            return
        newest = segments[-1]
        if newest.error:
            print(f"\n{newest.error.rstrip()}")
        print(f"\nsegment {newest.n} wrote:")
        try:
            for piece in attach_if_running(at.site).logs(newest.id, follow):
                sys.stdout.write(piece)
        except Unavailable as fault:
            print(f"(its output is gone: {fault})")


@dataclass(frozen=True)
class Files:
    """What of one job's report is written where; None is not written."""

    html: Path | None = None
    png: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None
    codecarbon: Path | None = None
    to: tuple[str, ...] = ()
    """Loggers, as KIND:PLACE."""

    def log(self, found: Report, site: Site) -> None:
        """Bring the job's run in each logger up to date; Unavailable where one does not answer."""
        for target in self.to:
            with closing(open_logger(target, site.state / "loggers")) as logger:
                logger.write(run_of(found, site.history_s))

    def write(self, found: Report) -> None:
        """Write what is asked for; InputError where a file cannot be."""
        wanted = (
            (self.html, write_page),
            (self.png, draw),
            (self.csv, write_csv),
            (self.parquet, write_parquet),
            (self.codecarbon, codecarbon.write),
        )
        for path, to in wanted:
            if path is not None:
                to(found, path)


def report(site_file: Path | None, name: str | None, as_json_: bool, files: Files) -> None:
    """One job's account, or that of every job."""
    with desk(site_file) as at:
        if name is None:
            if files != Files():
                raise InputError("JOB: is missing; --html, --png, --csv, --parquet, --codecarbon and --to show one job")
            with at.store.read() as session:
                names = [job.id for job in jobs.all_jobs(session)]
            if as_json_:
                print_json([as_json(load_report(at, job_id)) for job_id in names])
            else:
                for job_id in names:
                    show_report(at, job_id)
            return
        found = load_report(at, name)
        files.write(found)
        files.log(found, at.site)
        if as_json_:
            print_json(as_json(found))
        else:
            _print(found)


def write_page(found: Report, path: Path) -> None:
    """Write the page."""
    path.write_text(page(found), encoding="utf-8")


def load_report(at: Desk, name: str) -> Report:
    """The report on a job of this id or name, from what the store holds now."""
    with at.store.read() as session:
        return report_of(account_of(session, at.site, jobs.find(session, name), utcnow(), whole=True))


def show_report(at: Desk, name: str) -> None:
    """Print one job's report for people."""
    _print(load_report(at, name))


def _print(found: Report) -> None:
    from rich.console import Console

    Console().print(text(found))


def write_report(at: Desk, name: str, folder: Path) -> list[Path]:
    """Write report.json, report.html and report.png; returns their paths."""
    import json

    found = load_report(at, name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"report.{kind}" for kind in ("json", "html", "png")]
    paths[0].write_text(json.dumps(as_json(found), indent=2) + "\n", encoding="utf-8")
    write_page(found, paths[1])
    draw(found, paths[2])
    return paths
