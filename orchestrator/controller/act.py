"""Orders, carried out on the cluster: segments started, told what is wanted of them, or killed.
In: orders as they were written. Out: nothing; why a start came to nothing is written to its job.
The last that a pass does for its jobs; what fails here the next pass does again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from jobs.spec import Refused, StaleEpoch, Unavailable
from orchestrator.controller.observe import Writing
from orchestrator.controller.reach import Reach
from orchestrator.controller.settle import refused
from orchestrator.controller.write import Order
from orchestrator.store.schema import Job

log = logging.getLogger(__name__)


def act(orders: Sequence[Order], reach: Reach, writing: Writing, clock: Callable[[], datetime]) -> None:
    """Carry out what was written. Raises StaleEpoch where a newer controller has spoken."""
    for order in orders:
        segment_id = order.segment.segment_id
        try:
            _carry_out(order, reach)
        except StaleEpoch:
            raise
        except Unavailable as fault:
            log.warning("%s: %s", segment_id, fault)
            # What answers to everything but this start refuses it, however it says so.
            answers = isinstance(fault, Refused) or (not order.known and reach.answers(segment_id))
            if not answers:
                reach.drop()
            if order.known:
                continue
            with writing() as session:
                if answers:
                    refused(session, segment_id, str(fault), clock())
                else:
                    session.get_one(Job, order.segment.job_id).reason = f"cannot be started yet: {fault}"


def _carry_out(order: Order, reach: Reach) -> None:
    if order.kill:
        reach.cluster().kill(order.segment.segment_id)
    elif order.known:
        reach.cluster().desire(order.segment.segment_id, order.segment.desire)
    else:
        reach.cluster().start(order.segment)
