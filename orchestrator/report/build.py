"""A job's report as plain data: the one form that the terminal, the page and `report --json` share.
In: an Account. Out: a dict with the keys of the README's contract; None (null) is not known, never zero.
`text`, `page` and `picture` show it to people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.spec import iso
from orchestrator.accounting.account import Account, own_rows
from orchestrator.accounting.apportion import Apportioned, apportioned
from orchestrator.accounting.charge import Charge
from orchestrator.accounting.efficiency import Efficiency, efficiency_of
from orchestrator.accounting.ledger import Ledger, add_up, transfer_j
from orchestrator.accounting.left import Left, left_by
from orchestrator.accounting.pauses import Took, starts, stops
from orchestrator.accounting.revision import average_g, forecast_h, marginal_g, revised_g
from orchestrator.accounting.run_now import Savings, savings
from orchestrator.report.observed import Forgone, forgone

DEMO_PROVIDER = "demo"


@dataclass(frozen=True)
class Report:
    """Facts with every figure derived from them, so that what shows a report computes nothing."""

    facts: Account
    ledger: Ledger
    savings: Savings
    left: Left = Left()
    revised_g: float | None = None
    marginal_g: float | None = None
    efficiency: Efficiency | None = None
    average_g: float | None = None
    training: Apportioned | None = None
    """The joules of phase train by part of a step."""
    starts: Took | None = None
    stops: Took | None = None

    @property
    def forgone(self) -> Forgone | None:
        """What a plan would have saved, where the policy is `observe`."""
        return forgone(self.facts, self.ledger)

    @property
    def site_saved_g(self) -> float | None:
        """What was saved against run-now, less what the GPUs drew idle that the job had left."""
        if self.savings.saved_g is None or self.left.emissions_g is None:
            return None
        return self.savings.saved_g - self.left.emissions_g

    @property
    def generated_grid(self) -> bool:
        """True where the intensities were made up for a demonstration."""
        return self.facts.generated_grid or any(given.provider == DEMO_PROVIDER for given in self.facts.intensities)

    @property
    def estimated(self) -> bool:
        """True where any joule is an estimate that no meter read."""
        return any(row.source == "estimated" for row in own_rows(self.facts))

    @property
    def estimated_percent(self) -> float:
        """Share of the energy that is an estimate."""
        return self.ledger.estimated_percent or 0.0


def report_of(facts: Account) -> Report:
    """Add the facts up and compare them with run-now."""
    ledger = add_up(facts)
    compared = savings(facts, ledger)
    return Report(
        facts,
        ledger,
        compared,
        left_by(facts),
        revised_g(facts),
        marginal_g(facts),
        efficiency_of(facts),
        average_g(facts),
        apportioned(facts),
        starts(facts),
        stops(facts),
    )


def build(facts: Account) -> dict[str, Any]:
    """The report as `report --json` prints it: SI units named in the keys, times as ISO 8601 UTC with Z."""
    return as_json(report_of(facts))


def as_json(report: Report) -> dict[str, Any]:
    """The keys of the contract, and `notes`: in plain sentences, what is estimated or missing."""
    facts, ledger, compared = report.facts, report.ledger, report.savings
    return {
        "job": facts.job_id,
        "state": facts.state,
        "step": facts.step,
        "metrics": dict(facts.metrics),
        "segments": _segments(facts, ledger),
        "workers": [
            {
                "rank": worker.rank,
                "node": worker.node,
                "device": worker.device,
                "uuid": worker.uuid,
                "source": worker.source,
                "energy_j": energy_j,
            }
            for worker, energy_j in ledger.workers.items()
        ],
        "phases": dict(ledger.phases),
        "train_energy_j": _training(report.training),
        "energy_j": ledger.total.energy_j,
        "unmetered_s": ledger.unmetered_s,
        "overhead_j": ledger.overhead.energy_j if ledger.overhead is not None else None,
        "pue": ledger.pue,
        "water_l": ledger.water_l,
        "emissions_g": {
            "operational": ledger.total.emissions_g,
            "overhead": ledger.overhead.emissions_g if ledger.overhead is not None else None,
            "embodied": ledger.embodied_g,
            "transfer": ledger.transfer_g,
            "total": ledger.emissions_g,
        },
        "moves": _moves(facts),
        "starts": _took(report.starts),
        "stops": _took(report.stops),
        "run_now_emissions_g": compared.run_now.emissions_g if compared.run_now else None,
        "saved_g": compared.saved_g,
        "saved_percent": compared.saved_percent,
        "site_saved_g": report.site_saved_g,
        "observed": _observed(report.forgone),
        "revised_g": report.revised_g,
        "marginal_emissions_g": report.marginal_g,
        "average_emissions_g": report.average_g,
        **_efficiency(report.efficiency),
        "uncertainty": {
            "estimated_percent": ledger.estimated_percent,
            "forecast_percent": ledger.forecast_percent,
            "forecast_h": forecast_h(facts),
            "unmetered_percent": ledger.unmetered_percent,
        },
        "signal": {
            "provider": ", ".join(ledger.providers) or None,
            "kind": " and ".join(ledger.signals) or None,
            "coverage_percent": ledger.coverage_percent,
            "measured_percent": ledger.measured_percent,
        },
        "notes": notes(report),
    }


def _training(found: Apportioned | None) -> dict[str, Any] | None:
    return None if found is None else {**found.parts_j, "unknown": found.unknown_j, "source": "apportioned"}


def _took(found: Took | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"count": found.count, "mean_s": found.mean_s, "parts_s": dict(found.parts_s)}


def _efficiency(found: Efficiency | None) -> dict[str, float | None]:
    names = ("per_sample_j", "per_token_j", "samples_per_j", "tokens_per_j", "flop_per_j")
    return {name: None if found is None else getattr(found, name) for name in names}


def _moves(facts: Account) -> list[dict[str, Any]]:
    """Each checkpoint that left its zone: bytes as they went, compressed or not, seconds, and the network's joules."""
    return [
        {
            "at": iso(move.at),
            "from": move.zone,
            "to": move.to_zone or None,
            "moved_bytes": move.moved_bytes,
            "moved_s": move.duration_s,
            "moved_j": transfer_j(move, facts),
        }
        for move in facts.transfers
    ]


def _observed(found: Forgone | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"emissions_g": found.emissions_g, "saved_g": found.saved_g, "saved_percent": found.saved_percent}


def notes(report: Report) -> list[str]:
    """What a reader must know beside the figures: estimates, gaps, generated data; empty where there is nothing."""
    facts, ledger = report.facts, report.ledger
    found: list[str] = []
    if report.generated_grid:
        found.append("The grid is generated: its intensities are made up for a demonstration.")
    if report.estimated:
        found.append(f"{report.estimated_percent:.0f} % of the energy is estimated, not metered (source: estimated).")
    if ledger.unmetered_s >= 0.05:
        found.append(f"{ledger.unmetered_s:.1f} worker-seconds were not metered: the true energy is higher.")
    coverage = ledger.coverage_percent
    if coverage is not None and coverage < 99.95:
        found.append(f"{100 - coverage:.1f} % of the energy has no intensity: its grams are missing from every figure.")
    if ledger.total.forecast_j:
        found.append(
            f"{ledger.forecast_percent:.1f} % of the energy ({forecast_h(facts):.1f} h) is charged by forecasts alone:"
            " measured intensities will revise it."
        )
    if "marginal" in ledger.signals:
        part = "In part charged" if "average" in ledger.signals else "Charged"
        found.append(f"{part} by marginal intensities, for want of average ones: not for a location-based inventory.")
    found += _embodied_notes(facts, ledger)
    found += _silent_notes(facts, ledger)
    if ledger.transfer_g is None:
        found.append("The transfer's grams are not known: joules per byte or the intensity is missing.")
    if report.savings.saved_g is not None and report.left.reason:
        found.append(f"What the site saved is not given: {report.left.reason}.")
    if report.savings.reason:
        found.append(f"Savings are not given: {report.savings.reason}.")
    return found


def _embodied_notes(facts: Account, ledger: Ledger) -> list[str]:
    if ledger.embodied_g is None:
        return ["Embodied emissions are not counted: the site gives no figure for them."]
    held: Sequence[str] = sorted({segment.zone for segment in facts.segments if segment.gpus})
    silent = [zone for zone in held if zone in facts.zones and facts.zones[zone].embodied_g_per_gpu_hour is None]
    return [f"Embodied emissions leave out {', '.join(silent)}: the site gives no figure there."] if silent else []


def _silent_notes(facts: Account, ledger: Ledger) -> list[str]:
    """Zones that give no figure where others do: their part is missing from the sum."""
    asked = (
        ("The nodes' overhead leaves", "node_overhead_w", ledger.overhead),
        ("Water leaves", "wue_l_per_kwh", ledger.water_l),
    )
    found = []
    for what, figure, value in asked:
        held = sorted({segment.zone for segment in facts.segments if segment.zone in facts.zones})
        silent = [zone for zone in held if getattr(facts.zones[zone], figure) is None]
        if value is not None and silent:
            found.append(f"{what} out {', '.join(silent)}: the site gives no figure there.")
    return found


def _segments(facts: Account, ledger: Ledger) -> list[dict[str, Any]]:
    """Each segment with its joules and operational grams (the embodied share is the job's as a whole)."""
    result: list[dict[str, Any]] = []
    for segment in sorted(facts.segments, key=lambda segment: segment.n):
        charge = ledger.segments.get(segment.segment_id, Charge())
        result.append(
            {
                "start": iso(segment.started_at),
                "end": iso(segment.ended_at) if segment.ended_at is not None else None,
                "zone": segment.zone,
                "workers": segment.workers,
                "reason": segment.reason,
                "energy_j": charge.energy_j,
                "emissions_g": charge.emissions_g,
            }
        )
    return result
