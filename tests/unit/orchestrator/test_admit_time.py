"""What is refused at the door because of time and grams: a budget that not even the cheapest plan keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from jobs.spec import InputError
from orchestrator.admission import admit_time
from orchestrator.controller.learn import Learned
from orchestrator.plan.problem import PauseCost
from tests.unit.orchestrator.controller.test_frame import FRAMING, SITE, SPEC


def carbon(**changes: object) -> object:
    return SPEC.model_copy(update={"carbon": SPEC.carbon.model_copy(update={"windows": [], **changes})})


def test_a_budget_that_the_cheapest_plan_exceeds_is_refused_with_what_it_would_take() -> None:
    framing = replace(FRAMING, spec=carbon(budget_g=80.0))  # an hour of 300 W at 300 g/kWh is 90 g
    with pytest.raises(InputError, match=r"tiny.yaml: carbon.budget: 80 g do not suffice, the cheapest plan .* 91.5 g"):
        admit_time(framing, SITE, "tiny.yaml")
    enough = admit_time(replace(framing, spec=carbon(budget_g=92.0)), SITE, "tiny.yaml")
    assert enough is not None and enough.slots


def test_a_budget_is_judged_once_the_job_is_measured() -> None:
    unmeasured = Learned({}, PauseCost(60.0), stop_s=15.0)
    made = admit_time(replace(FRAMING, spec=carbon(budget_g=1e-3), learned=unmeasured), SITE, "tiny.yaml")
    assert made is not None and made.slots


def test_a_deadline_that_cannot_be_met_is_refused_with_the_earliest_finish() -> None:
    due = FRAMING.now + timedelta(minutes=30)
    with pytest.raises(
        InputError, match=r"carbon.finish_by: .* cannot be met, the earliest finish is 2026-03-01T23:01"
    ):
        admit_time(replace(FRAMING, spec=carbon(finish_by=due)), SITE, "tiny.yaml")
