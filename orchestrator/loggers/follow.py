"""Following the jobs that run: their runs are brought up to date beside the passes, as the site file asks.
In: the store and the site. Out: runs in every logger that the site names.
`serve`, `run` and `window` keep one in a thread of its own; `tick` lets it do one round.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import or_, select

from jobs.spec import InputError, Unavailable
from orchestrator.controller import utcnow
from orchestrator.loggers.series import run_of
from orchestrator.loggers.target import Logger, open_logger
from orchestrator.report.build import report_of
from orchestrator.site import Site
from orchestrator.store import Store
from orchestrator.store.accounts import account_of
from orchestrator.store.schema import Job, Segment

log = logging.getLogger(__name__)

AFTER_END = timedelta(minutes=5)
"""How long a job that has ended is followed: its last rows come up to a minute later."""
CLOSING_S = 10.0
SHARE = 20
"""A round may take one part in so many of the time: a job of many rows is followed less often."""


@contextmanager
def followed(store: Store, site: Site) -> Iterator[None]:
    """Inside, a thread follows the site's jobs, where the site names a logger; at the end once more what has ended."""
    follower = Follower(store, site)
    stop = threading.Event()
    thread = threading.Thread(target=follower.forever, args=(stop,), daemon=True, name="loggers")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=CLOSING_S)
        if not thread.is_alive():  # a logger that does not answer holds up no command's end
            follower.once()
            follower.close()


class Follower:
    """Keeps the site's loggers up to date. Raises Unavailable where a logger's library is not installed."""

    def __init__(self, store: Store, site: Site) -> None:
        self._store, self._site = store, site
        folder = site.state / "loggers"
        self._loggers: list[Logger] = [open_logger(each, folder) for each in site.loggers.targets]

    def once(self, job_ids: Sequence[str] | None = None) -> None:
        """Write the jobs that run or have just ended, or some; a logger that fails keeps no other from its runs."""
        if not self._loggers:
            return
        for job_id in self._current(utcnow()) if job_ids is None else job_ids:
            with self._store.read() as session:
                job = session.get_one(Job, job_id)
                try:
                    report = report_of(account_of(session, self._site, job, utcnow(), whole=True))
                except InputError as fault:  # its stored spec cannot be read: others are followed
                    log.warning("%s", fault)
                    continue
            run = run_of(report, self._site.history_s)
            for logger in self._loggers:
                try:
                    logger.write(run)
                except Unavailable as fault:
                    log.warning("%s", fault)

    def forever(self, stop: threading.Event) -> None:
        """Go on until `stop` is set."""
        while self._loggers and not stop.is_set():
            began_s = time.monotonic()
            try:
                self.once()
            except Unavailable as fault:
                log.warning("%s", fault)
            except Exception as fault:  # the thread's edge: without it no run would be followed any more
                log.exception("following jobs failed (%s: %s); it is tried again", type(fault).__name__, fault)
            stop.wait(max(self._site.history_s, SHARE * (time.monotonic() - began_s)))

    def close(self) -> None:
        """Close the loggers."""
        for logger in self._loggers:
            logger.close()

    def _current(self, now: datetime) -> list[str]:
        query = (
            select(Job.id)
            .join(Segment, Segment.job_id == Job.id)
            .where(or_(Segment.ended_at.is_(None), *(at > now - AFTER_END for at in (Segment.ended_at, Job.ended_at))))
            .distinct()
        )
        with self._store.read() as session:
            return sorted(session.scalars(query))
