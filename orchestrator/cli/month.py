"""`lowtide report --month`: what the site's jobs drew and emitted in a month, by project, user or zone.
In: the store. Out: a table, or JSON.
It changes nothing.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from orchestrator.cli.desk import desk, print_json
from orchestrator.controller import utcnow
from orchestrator.report.month import by_of, lines, month_of, table, total_of
from orchestrator.store import facts, jobs
from orchestrator.store.accounts import account_of


def month(site_file: Path | None, text: str, by_text: str, as_json: bool) -> None:
    """Add up every job that was there in the month; InputError where month or `--by` is none."""
    (start, end), by, now = month_of(text), by_of(by_text), utcnow()
    with desk(site_file) as at, at.store.read() as session:
        there = [
            account_of(session, at.site, job, now)
            for job in jobs.all_jobs(session)
            # The last rows of a segment are cut up to a minute after the job has ended.
            if job.submitted_at < end and (job.ended_at or now) + timedelta(minutes=2) > start
        ]
        idle_j = facts.idle_j(session, start, end)
    found = lines(there, start, end, by)
    if as_json:
        rows = [line.to_json() for line in found]
        print_json({"month": text, "by": by, "rows": rows, "total": total_of(found).to_json(), "idle_j": idle_j})
        return
    from rich.console import Console

    Console().print(table(text, by, found, idle_j))
