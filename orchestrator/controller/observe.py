"""What the cluster shows, taken in: views of segments, and the rows of meters.
In: the store and the way to the cluster. Out: facts in the store, or why they could not be had.
A pass begins with it; `settle` says what it means for the jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy.orm import Session

from cluster.api import MeterRow
from jobs.spec import Unavailable
from orchestrator.controller.reach import Reach
from orchestrator.controller.settle import settle
from orchestrator.site import Site
from orchestrator.store import Store, facts, owed, progress
from orchestrator.store.jobs import running_ids

log = logging.getLogger(__name__)

Writing = Callable[[], AbstractContextManager[Session]]
"""Opens a transaction of the pass."""


def observe(store: Store, site: Site, reach: Reach, writing: Writing, now: datetime) -> str:
    """Take in views and rows of what runs; returns why that could not be done, or an empty text."""
    with store.read() as session:
        running, due = running_ids(session), owed.due(session, now)
    if not running:
        if due:
            _collect(site, reach, writing, now)
        return ""
    try:
        cluster = reach.cluster()
        views = cluster.observe(running)
        # After the views: a segment that ended has made its last rows before it said so.
        rows = cluster.collect(site.spool)
        with writing() as session:
            facts.add_rows(session, rows)
            settle(session, views, now)
            progress.keep(session, views, site.history_s)
            owed.settle(session, now)
        # Only what is committed is acknowledged: after a crash in between, the meters send it again.
        cluster.acknowledge(site.spool, rows)
    except Unavailable as fault:
        reach.drop()
        log.warning("%s", fault)
        return str(fault)
    return ""


def _collect(site: Site, reach: Reach, writing: Writing, now: datetime) -> None:
    """Take in rows of what ran, where nothing runs any more; what cannot be had now is asked for later."""
    rows: Sequence[MeterRow] = ()
    try:
        rows = reach.visited().collect(site.spool)
    except Unavailable as fault:
        reach.drop()
        log.info("rows are owed: %s", fault)
    with writing() as session:
        facts.add_rows(session, rows)
        owed.settle(session, now)
    try:
        if rows:
            reach.visited().acknowledge(site.spool, rows)
    except Unavailable as fault:
        reach.drop()
        log.info("rows are sent again: %s", fault)
