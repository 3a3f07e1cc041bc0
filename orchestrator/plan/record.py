"""A plan as the JSON of `lowtide plan --json`, and back.
In: a Plan. Out: its document; `read` gives an equal plan again.
The store keeps the document, so that a plan stands until something that it was made from changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.spec import iso, utc
from orchestrator.plan.problem import Plan, PlannedSlot


def document(plan: Plan, job_id: str) -> dict[str, Any]:
    """The contract's keys, and what a later pass needs to go on with the plan."""
    return {
        "job": job_id,
        "policy": plan.policy,
        "basis": plan.basis,
        "finish_at": iso(plan.finish_at),
        "emissions_g": plan.emissions_g,
        "run_now_emissions_g": plan.run_now_emissions_g,
        "saved_percent": plan.saved_percent,
        "energy_j": plan.energy_j,
        "misses_deadline": plan.misses_deadline,
        "unknown_s": plan.unknown_s,
        "reason": plan.reason,
        "slots": [{"start": iso(s.start), "end": iso(s.end), "zone": s.zone, "workers": s.workers} for s in plan.slots],
    }


def read(written: Mapping[str, Any]) -> Plan:
    """The plan that `document` wrote (times to the millisecond)."""
    slots = (PlannedSlot(utc(s["start"]), utc(s["end"]), s["zone"], s["workers"]) for s in written["slots"])
    return Plan(
        policy=written["policy"],
        basis=written["basis"],
        slots=tuple(slots),
        finish_at=utc(written["finish_at"]),
        emissions_g=written["emissions_g"],
        energy_j=written["energy_j"],
        run_now_emissions_g=written["run_now_emissions_g"],
        misses_deadline=written["misses_deadline"],
        unknown_s=written["unknown_s"],
        reason=written["reason"],
    )
