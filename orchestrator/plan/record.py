"""A plan as the JSON of `lowtide plan --json`, and back.
In: a Plan. Out: its document; `read` gives an equal plan again.
The store keeps the document, so that a plan stands until something that it was made from changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.spec import iso, utc
from orchestrator.plan.problem import Observed, Plan, PlannedSlot


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
        "slots": _written(plan.slots),
        "observed": _observed(plan.observed) if plan.observed is not None else None,
    }


def read(written: Mapping[str, Any]) -> Plan:
    """The plan that `document` wrote (times to the millisecond)."""
    return Plan(
        policy=written["policy"],
        basis=written["basis"],
        slots=_read(written["slots"]),
        finish_at=utc(written["finish_at"]),
        emissions_g=written["emissions_g"],
        energy_j=written["energy_j"],
        run_now_emissions_g=written["run_now_emissions_g"],
        misses_deadline=written["misses_deadline"],
        unknown_s=written["unknown_s"],
        reason=written["reason"],
        observed=observed_in(written),
    )


def when_done(written: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What is kept of a plan once its job is done: what was observed, for the report."""
    return {**written, "slots": []} if written is not None and written.get("observed") else None


def observed_in(written: Mapping[str, Any]) -> Observed | None:
    """What `document` wrote of policy `observe`."""
    seen = written.get("observed")
    if seen is None:
        return None
    return Observed(
        basis=seen["basis"],
        slots=_read(seen["slots"]),
        emissions_g=seen["emissions_g"],
        energy_j=seen["energy_j"],
        now_emissions_g=seen["now_emissions_g"],
        now_energy_j=seen["now_energy_j"],
    )


def _observed(seen: Observed) -> dict[str, Any]:
    return {
        "basis": seen.basis,
        "emissions_g": seen.emissions_g,
        "energy_j": seen.energy_j,
        "now_emissions_g": seen.now_emissions_g,
        "now_energy_j": seen.now_energy_j,
        "saved_percent": seen.saved_percent,
        "slots": _written(seen.slots),
    }


def _written(slots: Iterable[PlannedSlot]) -> list[dict[str, Any]]:
    return [
        {"start": iso(s.start), "end": iso(s.end), "zone": s.zone, "workers": s.workers}
        | ({"power_limit_w": s.power_limit_w} if s.power_limit_w is not None else {})
        for s in slots
    ]


def _read(slots: Iterable[Mapping[str, Any]]) -> tuple[PlannedSlot, ...]:
    return tuple(
        PlannedSlot(utc(s["start"]), utc(s["end"]), s["zone"], s["workers"], s.get("power_limit_w")) for s in slots
    )
