"""`lowtide status` on a store of many jobs, as its users wait for it: the whole command, from its start.
In: a folder with a site's store. Out: seconds, while all of the jobs are active and when most have ended.
`scale` measures it on its fleet when the passes are through.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from orchestrator.site import Site
from orchestrator.store import Store
from orchestrator.store.jobs import running_segments
from orchestrator.store.schema import Job

TIMES = 3
STILL = 0.1
"""Share of the jobs that have not ended, in the end."""


def status_s(folder: Path, site: Site, *options: str) -> tuple[float, int]:
    """Wall seconds of the command, the best of a few, and how many jobs it shows."""
    zones = {name: {"provider": zone.names[0], "gpus": zone.gpus} for name, zone in site.zones.items()}
    file = folder / "lowtide.yaml"
    file.write_text(json.dumps({"zones": zones, "slot": f"{site.slot_s:.0f}s"}))
    command = [str(Path(sys.executable).with_name("lowtide")), "--site", str(file), "status", *options]
    took_s, shown = [], 0
    for _ in range(TIMES):
        began_s = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        took_s.append(time.perf_counter() - began_s)
        lines = done.stdout.split("\n\n")[0].splitlines()[1:]  # below the head, above the fleet's figures
        shown = len(json.loads(done.stdout) if "--json" in options else lines)
    return min(took_s), shown


def end_most(store: Store, now: datetime) -> None:
    """Let all jobs end but those that run and some that wait, one a minute until now."""
    with store.write() as session:
        runs = {segment.job_id for segment in running_segments(session)}
        ids = session.scalars(select(Job.id).where(Job.ended_at.is_(None)).order_by(Job.submitted_at, Job.id)).all()
        still = runs | set(ids[: round(STILL * len(ids))])
        ended: list[dict[str, Any]] = [
            {"id": job_id, "state": "done", "reason": "all steps are done", "ended_at": now - n * timedelta(minutes=1)}
            for n, job_id in enumerate(each for each in ids if each not in still)
        ]
        session.execute(update(Job), ended)
