"""A rank that stops moving, as one in a collective whose peer is gone: its segment is killed, and its job finished.
In: `lowtide serve`, and SIGSTOP for one worker. Out: that segment is lost for it, and the next one ends the job.
"""

from __future__ import annotations

import signal

import pytest

from tests.integration.conftest import Opening, processes_of

pytestmark = pytest.mark.timeout(1800)  # minutes where others use the machine, too

WORKER = "RayTrainWorker"
STEPS = 1500


def test_a_segment_that_hangs_is_killed_and_the_next_one_ends_its_job(lowtide_at: Opening) -> None:
    site = lowtide_at(stuck_after="2m", renew_within="20s")
    training = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2}
    site.run("submit", site.spec("still", training=training, checkpoint={"every": "2s"}))
    with site.serving():
        site.until(lambda: site.training("still"), "still")
        workers = [process for process in processes_of(site.state) if WORKER in " ".join(process.cmdline())]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGSTOP)
        site.until(lambda: site.segments("still")[0].ended, "still")
        site.until(lambda: site.job("still").state == "done", "still")
        assert not any(worker.is_running() for worker in workers), "what hung holds nothing any more"
    first, second = site.segments("still")[:2]
    assert (first.ended, second.reason) == ("lost", "retry")
    assert first.error is not None and "no further step, and no phase but 'train', for " in first.error
    assert site.job("still").step == STEPS
