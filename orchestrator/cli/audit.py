"""`lowtide report --verify`: whether the ledger is as it was written.
In: the store, and a job or none. Out: one line or JSON; exit 1 names the first row that does not fit.
It changes nothing; `store/chain.py` says what it can and cannot find.
"""

from __future__ import annotations

from pathlib import Path

from jobs.spec.errors import LowtideError
from orchestrator.cli.desk import desk, print_json
from orchestrator.store import chain, jobs

SHOWN = 16
"""Characters of a link that are enough to compare by eye; the JSON has all."""


def verify(site_file: Path | None, name: str | None, as_json: bool) -> None:
    """Walk the chains of ledger rows and intensities; LowtideError (exit 1) where a row does not fit."""
    with desk(site_file) as at, at.store.read() as session:
        job_id = None if name is None else jobs.find(session, name).id
        found = chain.audit(session, job_id)
    if as_json:
        document = {"intact": found.fault is None, "rows": found.rows, "intensities": found.intensities}
        print_json({**document, "fault": found.fault, "ends": dict(found.ends)})
    if found.fault is not None:
        raise LowtideError(f"the ledger was changed after it was written: {found.fault}")
    if not as_json:
        ends = ", ".join(link[:SHOWN] for link in found.ends.values())
        whose = "" if job_id is None else f" of {job_id}"
        kept = f" (the chains end in {ends})" if ends else ""
        print(f"{found.rows} rows{whose} and {found.intensities} intensities are intact{kept}")
