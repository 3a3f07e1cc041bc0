"""The accounting of one job: joules by segment, worker and phase, and grams by the intensities that applied.
In: an Account of plain facts (metered rows, intensities, zones, segments). Out: a Ledger, derived anew each time.
`run_now` compares it with the counterfactual; the report shows both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import fsum

from cluster.api import MeterRow, Source
from orchestrator.accounting.account import (
    Account,
    Intensity,
    SegmentFacts,
    Transfer,
    ZoneFacts,
    end_of,
    gpu_hours,
    own_rows,
)
from orchestrator.accounting.charge import J_PER_KWH, Charge, Curve
from orchestrator.accounting.overhead import stays_of
from orchestrator.accounting.pue import mean_of
from orchestrator.signal.forecast import Signal

__all__ = [
    "J_PER_KWH",
    "PHASES",
    "Account",
    "Charge",
    "Curve",
    "Intensity",
    "Ledger",
    "SegmentFacts",
    "Transfer",
    "Worker",
    "ZoneFacts",
    "add_up",
    "curves_of",
    "drawn",
    "emitted_g",
    "end_of",
    "gpu_hours",
    "own_rows",
    "transfer_j",
]

PHASES = ("start", "restore", "train", "evaluate", "checkpoint", "stop", "idle")


@dataclass(frozen=True, slots=True)
class Worker:
    """Who drew: a rank (-1 is the segment's driver) on a device, and how it was measured."""

    rank: int | None
    node: str
    device: str
    uuid: str | None
    source: Source


@dataclass(frozen=True)
class Ledger:
    """The figures of one job. Sums hold: segments = workers = phases = `total.energy_j` = the rows."""

    total: Charge
    segments: Mapping[str, Charge]
    workers: Mapping[Worker, float]
    """Joules, sorted by rank and device."""
    phases: Mapping[str, float]
    """Joules, in the order of a run."""
    metered_s: float
    unmetered_s: float
    """Worker-seconds without a reading: unreadable meters, holes between rows, ended segments without any row."""
    pue: float | None
    """Weighted by energy; of the one PUE there is where nothing was drawn yet; None where that is not one."""
    embodied_g: float | None
    """None where no zone that the job ran in gives a figure."""
    transfer_g: float | None
    """0 where nothing moved; None where bytes moved and the joules per byte or the intensity are not known."""
    overhead: Charge | None
    """Of the nodes' fans, network and disks, beside the rows; None where no zone that the job ran in gives a figure."""
    water_l: float | None
    """Litres at the site; None where no zone that the job ran in gives a figure."""
    providers: tuple[str, ...]
    signals: tuple[Signal, ...]

    @property
    def emissions_g(self) -> float | None:
        """All grams as far as they are known; None where no energy has an intensity."""
        return _all_g(self.total, self.overhead, self.embodied_g, self.transfer_g)

    @property
    def coverage_percent(self) -> float | None:
        """Share of the energy that has an intensity, of whatever kind; None before any energy was metered."""
        return _percent(self.total.known_j, self.total.energy_j)

    @property
    def measured_percent(self) -> float | None:
        """Share of the energy that is charged by measured intensities, neither estimated nor forecast."""
        return _percent(self.total.measured_j, self.total.energy_j)

    @property
    def forecast_percent(self) -> float | None:
        """Share of the energy that only a forecast charges yet."""
        return _percent(self.total.forecast_j, self.total.energy_j)

    @property
    def unmetered_percent(self) -> float | None:
        """Share of the worker-seconds without a reading; None before there are any."""
        return _percent(self.unmetered_s, self.metered_s + self.unmetered_s)

    @property
    def estimated_percent(self) -> float | None:
        """Share of the energy that is an estimate."""
        return _percent(self.estimated_j, self.total.energy_j)

    @property
    def estimated_j(self) -> float:
        """Joules that no meter read: estimates, labelled as such."""
        return fsum(energy_j for worker, energy_j in self.workers.items() if worker.source == "estimated")


def add_up(facts: Account) -> Ledger:
    """Every figure of the job's energy and emissions, from its facts alone: no clock, no store."""
    rows = own_rows(facts)
    segments = {segment.segment_id: segment for segment in facts.segments}
    curves = curves_of(facts)
    charged: dict[str, list[Charge]] = defaultdict(list)
    used: set[tuple[str, Signal]] = set()
    pues: list[tuple[float, float]] = []
    overhead = _overhead(facts, curves)
    for row in rows:
        segment = segments.get(row.segment_id or "")
        charge = Charge(row.energy_j or 0.0)
        if segment is not None and row.energy_j is not None and segment.zone in facts.zones:
            pue = facts.zones[segment.zone].pue
            charge = curves[segment.zone].charge(row.start, row.end, row.energy_j, pue)
            pues.append((row.energy_j, mean_of(pue, row.start, row.end)))
            used.update((i.provider, i.signal) for i, _ in curves[segment.zone].overlaps(row.start, row.end))
        charged[row.segment_id or ""].append(charge)
    workers, phases = _by_worker(rows), _by_phase(rows)
    by_segment = {segment_id: Charge.total(charges) for segment_id, charges in charged.items()}
    return Ledger(
        total=Charge.total([charge for charges in charged.values() for charge in charges]),
        segments=by_segment,
        workers=workers,
        phases=phases,
        metered_s=fsum(_length_s(row) for row in rows if row.energy_j is not None),
        unmetered_s=_unmetered_s(rows, facts.segments),
        pue=_mean_pue(pues, facts),
        embodied_g=_embodied_g(facts),
        transfer_g=_transfer_g(facts, curves),
        overhead=Charge.total([charge for _, charge in overhead]) if _given(facts, "node_overhead_w") else None,
        water_l=_water_l(facts, by_segment, overhead),
        providers=tuple(sorted({provider for provider, _ in used if provider})),
        signals=tuple(sorted({signal for _, signal in used})),
    )


def emitted_g(facts: Account, total: Charge, curves: Mapping[str, Curve]) -> float | None:
    """`Ledger.emissions_g` of a job whose rows were charged elsewhere, and whose zones give no `node_overhead_w`."""
    return _all_g(total, None, _embodied_g(facts), _transfer_g(facts, curves))


def drawn(facts: Account, curves: Mapping[str, Curve]) -> Charge:
    """All that the job drew, its nodes' overhead included, charged by these curves."""
    zones = {segment.segment_id: segment.zone for segment in facts.segments if segment.zone in facts.zones}
    charges = [charge for _, charge in _overhead(facts, curves)]
    for row in own_rows(facts):
        zone = zones.get(row.segment_id or "")
        if zone is not None and row.energy_j is not None:
            charges.append(curves[zone].charge(row.start, row.end, row.energy_j, facts.zones[zone].pue))
        else:
            charges.append(Charge(row.energy_j or 0.0))
    return Charge.total(charges)


def curves_of(facts: Account, first: bool = False) -> dict[str, Curve]:
    """The charging curve of every zone of the account; `first` is by what was known first of each moment."""
    by_zone: dict[str, list[Intensity]] = {zone: [] for zone in facts.zones}
    for intensity in facts.intensities:
        by_zone.setdefault(intensity.zone, []).append(intensity)
    return {zone: Curve.of(zone, said, facts.zones.get(zone, ZoneFacts()), first) for zone, said in by_zone.items()}


def _all_g(total: Charge, overhead: Charge | None, embodied_g: float | None, transfer_g: float | None) -> float | None:
    operational_g = total.emissions_g
    if operational_g is None:
        return None
    overhead_g = overhead.operational_g if overhead is not None else 0.0
    return fsum((operational_g, overhead_g, embodied_g or 0.0, transfer_g or 0.0))


def _length_s(row: MeterRow) -> float:
    return max(0.0, (row.end - row.start).total_seconds())


def _by_worker(rows: Sequence[MeterRow]) -> dict[Worker, float]:
    drawn: dict[Worker, list[float]] = defaultdict(list)
    for row in rows:
        drawn[Worker(row.rank, row.node, row.device, row.uuid, row.source)].append(row.energy_j or 0.0)
    order = sorted(drawn, key=lambda w: (w.rank is None, w.rank or 0, w.node, w.device, w.uuid or "", w.source))
    return {worker: fsum(drawn[worker]) for worker in order}


def _by_phase(rows: Sequence[MeterRow]) -> dict[str, float]:
    drawn: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        drawn[row.phase].append(row.energy_j or 0.0)
    return {phase: fsum(drawn[phase]) for phase in PHASES if phase in drawn}


def _unmetered_s(rows: Sequence[MeterRow], segments: Sequence[SegmentFacts]) -> float:
    """Worker-seconds that nobody read; a hole is time between two rows of one device in one segment."""
    missing = [_length_s(row) for row in rows if row.energy_j is None]
    reached: dict[tuple[str | None, int | None, str, str], datetime] = {}
    for row in rows:
        key = (row.segment_id, row.rank, row.host_boot, row.device)
        if key in reached and row.start > reached[key]:
            missing.append((row.start - reached[key]).total_seconds())
        reached[key] = max(row.end, reached.get(key, row.end))
    told = {row.segment_id for row in rows}
    for segment in segments:
        if segment.ended_at is not None and segment.segment_id not in told:
            missing.append(segment.workers * (segment.ended_at - segment.started_at).total_seconds())
        for (segment_id, _, host_boot, _), until in reached.items():
            # Its meter died with the host, so the last rows were never written.
            if segment_id == segment.segment_id and host_boot in segment.silent_hosts and segment.ended_at is not None:
                missing.append(max(0.0, (segment.ended_at - until).total_seconds()))
    return fsum(missing)


def _mean_pue(pues: Sequence[tuple[float, float]], facts: Account) -> float | None:
    energy_j = fsum(energy_j for energy_j, _ in pues)
    allowed = (facts.zones[zone].pue for zone in facts.allowed if zone in facts.zones)
    different = {pue for _, pue in pues} or {mean_of(pue, facts.submitted_at, facts.at) for pue in allowed}
    if len(different) == 1:
        return different.pop()
    return fsum(energy_j * pue for energy_j, pue in pues) / energy_j if energy_j else None


def _given(facts: Account, figure: str) -> bool:
    """Whether a zone where the job ran (or may run, where it has not yet) gives this figure."""
    zones = {segment.zone for segment in facts.segments} or set(facts.allowed)
    return any(getattr(facts.zones[zone], figure) is not None for zone in zones if zone in facts.zones)


def _embodied_g(facts: Account) -> float | None:
    if not _given(facts, "embodied_g_per_gpu_hour"):
        return None
    rates = {zone: given.embodied_g_per_gpu_hour for zone, given in facts.zones.items()}
    return fsum(gpu_hours(segment, facts) * (rates.get(segment.zone) or 0.0) for segment in facts.segments)


def _overhead(facts: Account, curves: Mapping[str, Curve]) -> list[tuple[str, Charge]]:
    """By segment: the zone's watts a node for the job's share of the time on it."""
    charges: list[tuple[str, Charge]] = []
    if not _given(facts, "node_overhead_w"):
        return charges
    for stay in stays_of(facts):
        zone = facts.zones.get(stay.segment.zone, ZoneFacts())
        energy_j = (zone.node_overhead_w or 0.0) * stay.node_s
        if energy_j:
            charge = curves[stay.segment.zone].charge(stay.start, stay.end, energy_j, zone.pue)
            charges.append((stay.segment.segment_id, charge))
    return charges


def _water_l(facts: Account, by_segment: Mapping[str, Charge], overhead: Sequence[tuple[str, Charge]]) -> float | None:
    """Litres = kWh of the computers x WUE (ISO/IEC 30134-9), the nodes' overhead included and PUE not."""
    if not _given(facts, "wue_l_per_kwh"):
        return None
    wue = {s.segment_id: facts.zones[s.zone].wue_l_per_kwh for s in facts.segments if s.zone in facts.zones}
    drawn = [*by_segment.items(), *overhead]
    return fsum(charge.energy_j / J_PER_KWH * (wue.get(segment_id) or 0.0) for segment_id, charge in drawn)


def transfer_j(transfer: Transfer, facts: Account) -> float | None:
    """Bytes x J/byte of the zone that they left; None where bytes moved and one of the two is not known."""
    j_per_byte = facts.zones[transfer.zone].transfer_j_per_byte if transfer.zone in facts.zones else None
    if transfer.moved_bytes is None or (transfer.moved_bytes and j_per_byte is None):
        return None
    return transfer.moved_bytes * (j_per_byte or 0.0)


def _transfer_g(facts: Account, curves: Mapping[str, Curve]) -> float | None:
    """Joules x g/kWh at the moment of the move; the network's joules carry no PUE."""
    charges: list[Charge] = []
    for transfer in facts.transfers:
        energy_j = transfer_j(transfer, facts)
        if energy_j is None:
            return None
        if energy_j:
            charges.append(curves[transfer.zone].charge(transfer.at, transfer.at, energy_j, pue=1.0))
    total = Charge.total(charges)
    return None if total.known_j < total.energy_j else total.operational_g


def _percent(part: float, whole: float) -> float | None:
    return 100.0 * min(1.0, part / whole) if whole else None
