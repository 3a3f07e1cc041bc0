"""A Ray job that ended and left no result: lost, for the job's own fault is told by a result alone.
In: what Ray's job API says of it. Out: nothing.
The fault campaign kills real drivers.
"""

from __future__ import annotations

from typing import Any

import pytest
from ray.job_submission import JobDetails

from cluster.ray_cluster import RayCluster

OUTPUT = "RayTrainWorker pid=7: a line of the job's"
MESSAGE = "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\n" + OUTPUT


class Jobs:
    """Ray's job API as far as it is asked here."""

    def get_job_logs(self, submission_id: str) -> str:
        return "Traceback (most recent call last):\n  ...\nImportError: no module named x"


def ended(**details: Any) -> tuple[str, str]:
    """How the segment ended, and the last line of why."""
    cluster = RayCluster.__new__(RayCluster)
    cluster._jobs = Jobs()  # type: ignore[assignment]
    given = {"type": "SUBMISSION", "submission_id": "a-1", "status": "FAILED", "entrypoint": "x", **details}
    result = cluster._synthesized(JobDetails.model_validate(given), None)
    assert result.error is not None
    return result.ended, result.error.splitlines()[-1]


@pytest.mark.parametrize("code", [-9, -15, 137])
def test_a_driver_that_a_signal_ended_is_lost(code: int) -> None:
    message = MESSAGE.format(code)
    how, why = ended(driver_exit_code=code, error_type="JOB_ENTRYPOINT_COMMAND_ERROR", message=message)
    assert how == "lost" and why.endswith(f"exit code {code}")


def test_a_driver_whose_node_is_gone_is_lost() -> None:
    how, why = ended(error_type="JOB_SUPERVISOR_ACTOR_DIED", message="The actor died: its node is gone")
    assert (how, why) == ("lost", "Ray job failed without a result: The actor died: its node is gone")


@pytest.mark.parametrize("code", [1, 2])
def test_a_driver_that_raised_is_lost_with_its_last_words(code: int) -> None:
    raised = {"driver_exit_code": code, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", "message": MESSAGE.format(code)}
    assert ended(**raised) == ("lost", "ImportError: no module named x")


def test_a_driver_that_ended_well_and_whose_result_is_gone_is_lost() -> None:
    how, why = ended(status="SUCCEEDED", driver_exit_code=0, message="Job finished successfully.")
    assert (how, why) == ("lost", "Ray job succeeded without a result: Job finished successfully.")
