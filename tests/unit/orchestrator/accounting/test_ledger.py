"""The ledger's arithmetic: worked examples by hand, gaps that stay visible, sums that hold for any rows.
In: accounts built here. Out: nothing.
`test_run_now` does the same for the counterfactual.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api import MeterRow
from orchestrator.accounting.ledger import (
    J_PER_KWH,
    PHASES,
    Account,
    Charge,
    Curve,
    Intensity,
    SegmentFacts,
    Transfer,
    ZoneFacts,
    add_up,
)

T0 = datetime(2026, 3, 1, 6, tzinfo=timezone.utc)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def row(seq: int, start: float, end: float, energy_j: float | None, segment: str | None = "j-1", **more) -> MeterRow:
    given = {"device": "gpu0", "rank": 0, "phase": "train", "source": "nvml-counter", "job_id": "j", **more}
    return MeterRow(
        "boot", seq=seq, node="n", start=at(start), end=at(end), energy_j=energy_j, segment_id=segment, **given
    )


def intensity(zone: str, start: float, end: float, g_per_kwh: float | None, kind="measured", **more) -> Intensity:
    return Intensity(zone, at(start), at(end), g_per_kwh, kind, more.pop("provider", "csv"), **more)


def segment(n: int, zone: str, start: float, end: float | None, workers: int = 1, **more) -> SegmentFacts:
    ended_at = None if end is None else at(end)
    return SegmentFacts(f"j-{n}", n, zone, workers, "start" if n == 1 else "move", at(start), ended_at, **more)


def facts(**more) -> Account:
    given = {
        "state": "running",
        "at": at(240),
        "submitted_at": T0,
        "zones": {"DE": ZoneFacts(pue=1.2), "FR": ZoneFacts(pue=1.5)},
        "allowed": ("DE", "FR"),
        **more,
    }
    return Account("j", "tiny", **given)


def two_zones() -> Account:
    """One hour in DE across a change of intensity, then half an hour in FR."""
    return facts(
        segments=[segment(1, "DE", 0, 60, gpus=2), segment(2, "FR", 120, 150, gpus=2)],
        rows=[
            row(1, 0, 40, 3_600_000.0),
            row(2, 40, 60, 1_800_000.0, phase="checkpoint"),
            row(3, 120, 150, 900_000.0, "j-2", device="gpu1", rank=1),
        ],
        intensities=[
            intensity("DE", 0, 30, 400.0),
            intensity("DE", 30, 60, 100.0),
            intensity("FR", 60, 180, 50.0, kind="forecast", provider="em"),
        ],
    )


def test_two_segments_in_two_zones_are_charged_by_overlap_as_by_hand():
    ledger = add_up(two_zones())
    # DE: 1 kWh over 40 min, 30 of them at 400 and 10 at 100; 0.5 kWh at 100; PUE 1.2
    de_g = 1.2 * (1.0 * (0.75 * 400 + 0.25 * 100) + 0.5 * 100)
    # FR: 0.25 kWh at 50; PUE 1.5
    fr_g = 1.5 * 0.25 * 50
    assert ledger.segments["j-1"].operational_g == pytest.approx(de_g, rel=1e-12) == 450.0
    assert ledger.segments["j-2"].operational_g == pytest.approx(fr_g, rel=1e-12) == 18.75
    assert ledger.emissions_g == pytest.approx(468.75)
    assert ledger.total.energy_j == 6_300_000
    assert ledger.phases == {"train": 4_500_000, "checkpoint": 1_800_000}
    assert [(w.rank, w.device, j) for w, j in ledger.workers.items()] == [(0, "gpu0", 5_400_000), (1, "gpu1", 900_000)]
    assert ledger.pue == pytest.approx((5.4 * 1.2 + 0.9 * 1.5) / 6.3)
    assert ledger.providers == ("csv", "em")
    assert ledger.coverage_percent == 100
    assert ledger.measured_percent == pytest.approx(100 * 5.4 / 6.3)
    assert ledger.unmetered_s == 0


def test_energy_without_an_intensity_has_no_grams_and_lowers_the_coverage():
    account = two_zones()
    known = [i for i in account.intensities if i.start != at(30)]
    ledger = add_up(replace(account, intensities=[*known, intensity("DE", 30, 60, None)]))
    # of DE's 1.5 kWh, 0.75 kWh lie in the half hour that is known
    assert ledger.total.operational_g == pytest.approx(1.2 * 0.75 * 400 + 18.75)
    assert ledger.coverage_percent == pytest.approx(100 * (0.75 + 0.25) / 1.75)
    assert ledger.total.energy_j == 6_300_000


def test_grams_are_unknown_and_not_zero_where_no_intensity_is_known():
    ledger = add_up(replace(two_zones(), intensities=[]))
    assert ledger.total.emissions_g is None
    assert ledger.emissions_g is None
    assert ledger.coverage_percent == 0
    assert ledger.providers == ()


def test_energy_in_a_zone_that_the_site_does_not_describe_is_counted_but_not_charged():
    ledger = add_up(replace(two_zones(), zones={"DE": ZoneFacts(pue=1.2)}, allowed=("DE",)))
    assert ledger.total.energy_j == 6_300_000
    assert ledger.segments["j-2"].emissions_g is None
    assert ledger.coverage_percent == pytest.approx(100 * 5.4 / 6.3)


def test_a_row_taken_twice_counts_once_and_order_does_not_matter():
    account = two_zones()
    again = [*account.rows, *account.rows]
    random.Random(0).shuffle(again)
    assert add_up(replace(account, rows=again)) == add_up(account)


def test_rows_of_another_job_and_of_the_idle_host_are_left_out():
    account = two_zones()
    foreign = [row(9, 0, 60, 1e9, job_id="other"), row(10, 0, 60, 1e9, None, job_id=None, phase="idle")]
    assert add_up(replace(account, rows=[*account.rows, *foreign])) == add_up(account)


def test_energy_of_no_length_is_charged_at_its_moment():
    account = facts(
        segments=[segment(1, "DE", 0, 60)],
        rows=[row(1, 30, 30, 3_600_000.0)],
        intensities=[intensity("DE", 0, 30, 400.0), intensity("DE", 30, 60, 100.0)],
    )
    assert add_up(account).total.operational_g == pytest.approx(1.2 * 100)


def test_before_anything_ran_the_figures_are_zero_and_the_shares_unknown():
    ledger = add_up(facts())
    assert (ledger.total.energy_j, ledger.emissions_g, ledger.unmetered_s) == (0, 0, 0)
    assert (ledger.coverage_percent, ledger.pue, ledger.embodied_g) == (None, None, None)


@pytest.mark.parametrize(("silent", "minutes"), [(frozenset(), 0), (frozenset({"boot"}), 2), (frozenset({"other"}), 0)])
def test_what_a_host_that_died_with_its_meter_had_not_written_is_unmetered(silent: frozenset[str], minutes: int):
    lost = segment(1, "DE", 0, 60, ended="lost", silent_hosts=silent)
    account = facts(segments=[lost], rows=[row(1, 0, 57, 1e5), row(2, 57, 58, 1e5)])
    assert add_up(account).unmetered_s == 60 * minutes


def test_seconds_without_a_reading_are_unmetered():
    unreadable = row(2, 10, 12, None)
    after_a_hole = row(3, 13, 20, 5.0)
    account = facts(
        segments=[segment(1, "DE", 0, 20), segment(2, "DE", 30, 31, workers=2)],
        rows=[row(1, 0, 10, 5.0), unreadable, after_a_hole],
    )
    # 2 min unreadable, a hole of 1 min, and a segment of 1 min with two workers that left no row at all
    assert add_up(account).unmetered_s == 60 * (2 + 1 + 2 * 1)
    assert add_up(account).total.energy_j == 10


def test_embodied_grams_are_gpu_hours_at_the_zone_s_rate_and_none_without_a_figure():
    account = two_zones()
    assert add_up(account).embodied_g is None
    zones = {"DE": ZoneFacts(1.2, embodied_g_per_gpu_hour=26.0), "FR": ZoneFacts(1.5, embodied_g_per_gpu_hour=20.0)}
    ledger = add_up(replace(account, zones=zones))
    assert ledger.embodied_g == pytest.approx(2 * 1.0 * 26 + 2 * 0.5 * 20)
    assert ledger.emissions_g == pytest.approx(468.75 + 72)


def test_a_running_segment_holds_its_gpus_until_the_report():
    account = facts(
        at=at(90), zones={"DE": ZoneFacts(1.0, 10.0)}, allowed=("DE",), segments=[segment(1, "DE", 0, None, gpus=4)]
    )
    assert add_up(account).embodied_g == pytest.approx(4 * 1.5 * 10)


def test_moved_bytes_are_charged_where_they_left_and_unknown_without_a_figure():
    account = replace(two_zones(), transfers=[Transfer(at(45), "DE", 10_000_000)])
    assert add_up(account).transfer_g is None
    zones = {"DE": ZoneFacts(1.2, transfer_j_per_byte=0.036), "FR": ZoneFacts(1.5)}
    assert add_up(replace(account, zones=zones)).transfer_g == pytest.approx(360_000 / J_PER_KWH * 100)
    assert add_up(two_zones()).transfer_g == 0


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (intensity("DE", 0, 60, 100.0, "measured"), intensity("DE", 0, 60, 900.0, "estimated")),
        (intensity("DE", 0, 60, 100.0, "estimated"), intensity("DE", 0, 60, 900.0, "forecast")),
        (intensity("DE", 0, 60, 100.0, "forecast"), intensity("DE", 0, 60, None, "measured")),
        (intensity("DE", 0, 60, 100.0, "forecast"), intensity("DE", 0, 60, 900.0, "extended")),
        (intensity("DE", 0, 60, 100.0, fetched_at=at(90)), intensity("DE", 0, 60, 900.0, fetched_at=at(70))),
        (intensity("DE", 0, 60, 100.0), intensity("DE", 0, 60, 900.0, signal="marginal")),
    ],
)
def test_of_overlapping_intensities_the_better_one_charges(better: Intensity, worse: Intensity):
    for given_order in ([better, worse], [worse, better]):
        pieces = Curve.of("DE", given_order).pieces
        assert [(p.start, p.end, p.g_per_kwh) for p in pieces] == [(at(0), at(60), 100.0)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # what the first choice measured stands, though the second was asked later in an outage
        (intensity("DE", 0, 60, 100.0, provider="em"), intensity("DE", 0, 60, 900.0, provider="uk", fetched_at=at(90))),
        (intensity("DE", 0, 60, 100.0, provider="uk"), intensity("DE", 0, 60, 900.0, provider="em", kind="forecast")),
        (intensity("DE", 0, 60, 100.0, provider="uk"), intensity("DE", 0, 60, None, provider="em")),
        (intensity("DE", 0, 60, 100.0, provider="uk"), intensity("DE", 0, 60, 900.0, provider="an earlier site's")),
    ],
)
def test_the_first_provider_of_the_chain_charges_where_it_is_as_sure(better: Intensity, worse: Intensity):
    for given_order in ([better, worse], [worse, better]):
        pieces = Curve.of("DE", given_order, ZoneFacts(charged_by=("em", "uk"))).pieces
        assert [(p.g_per_kwh, p.provider) for p in pieces] == [(100.0, better.provider)]


def test_marginal_intensities_fill_in_only_where_the_zone_mixes():
    said = [intensity("DE", 0, 60, 300.0), intensity("DE", 0, 120, 700.0, signal="marginal", provider="watttime")]
    assert [(p.start, p.end, p.signal) for p in Curve.of("DE", said).pieces] == [(at(0), at(60), "average")]
    mixed = Curve.of("DE", said, ZoneFacts(mix=True)).pieces
    assert [(p.start, p.end, p.signal) for p in mixed] == [(at(0), at(60), "average"), (at(60), at(120), "marginal")]


def intensities_of_any_kind() -> st.SearchStrategy[Intensity]:
    return st.builds(
        lambda start, length, g_per_kwh, kind, provider, signal, fetched: intensity(
            "DE", start, start + length, g_per_kwh, kind, provider=provider, signal=signal, fetched_at=at(fetched)
        ),
        st.integers(0, 20),
        st.integers(0, 10),
        st.none() | st.integers(0, 900).map(float),
        st.sampled_from(["measured", "estimated", "forecast", "extended"]),
        st.sampled_from(["em", "uk", "old"]),
        st.sampled_from(["average", "marginal"]),
        st.integers(0, 500),
    )


@given(st.lists(intensities_of_any_kind(), max_size=12, unique_by=lambda i: i.fetched_at), st.booleans())
def test_every_minute_is_charged_by_the_best_that_was_said_of_it(said: list[Intensity], mix: bool):
    facts_of_zone = ZoneFacts(charged_by=("em", "uk"), mix=mix)
    curve = Curve.of("DE", said, facts_of_zone)
    kinds, providers = ["forecast", "estimated", "measured"], ["old", "uk", "em"]
    real = [i for i in said if i.kind != "extended" and i.end > i.start]
    if not mix and any(i.signal == "average" for i in real):
        real = [i for i in real if i.signal == "average"]
    for minute in range(31):
        best = max(
            (i for i in real if i.start <= at(minute) < i.end),
            key=lambda i: (
                i.g_per_kwh is not None,
                i.signal == "average",
                kinds.index(i.kind),
                providers.index(i.provider),
                i.fetched_at,
            ),
            default=None,
        )
        found = curve.overlaps(at(minute), at(minute + 1))
        assert [(i.g_per_kwh, i.kind, i.provider, i.signal) for i, _ in found] == (
            [] if best is None or best.g_per_kwh is None else [(best.g_per_kwh, best.kind, best.provider, best.signal)]
        )


@given(st.lists(intensities_of_any_kind(), max_size=12), st.lists(st.floats(0, 1e7), min_size=30, max_size=30))
def test_known_and_measured_joules_never_exceed_what_was_drawn(said: list[Intensity], drawn_j: list[float]):
    curve = Curve.of("DE", said)
    charges = [curve.charge(at(minute), at(minute + 1), energy_j, 1.2) for minute, energy_j in enumerate(drawn_j)]
    total = Charge.total(charges)
    assert total.measured_j <= total.known_j * (1 + 1e-9) <= total.energy_j * (1 + 2e-9)
    assert total.energy_j == pytest.approx(sum(drawn_j))


def test_a_measured_hour_within_a_forecast_day_splits_it():
    curve = Curve.of("DE", [intensity("DE", 0, 180, 300.0, "forecast"), intensity("DE", 60, 120, 200.0)])
    assert [(p.start, p.end, p.g_per_kwh) for p in curve.pieces] == [
        (at(0), at(60), 300.0),
        (at(60), at(120), 200.0),
        (at(120), at(180), 300.0),
    ]


def rows_of_any_kind() -> st.SearchStrategy[MeterRow]:
    return st.builds(
        lambda seq, start, length, energy_j, segment_id, device, phase, source: row(
            seq,
            start,
            start + length,
            energy_j,
            segment_id,
            device=device,
            rank=int(device[-1]),
            phase=phase,
            source=source,
        ),
        st.integers(0, 10_000),
        st.floats(0, 200),
        st.floats(0, 5),
        st.none() | st.floats(0, 1e9),
        st.sampled_from(["j-1", "j-2", None]),
        st.sampled_from(["gpu0", "gpu1", "cpu2"]),
        phase=st.sampled_from(PHASES),
        source=st.sampled_from(["nvml-counter", "estimated"]),
    )


@given(st.lists(rows_of_any_kind(), max_size=40), st.randoms(use_true_random=False))
def test_segments_workers_and_phases_each_add_up_to_the_rows(rows: list[MeterRow], shuffled: random.Random):
    unique = list({(r.device, r.seq): r for r in rows}.values())
    expected_j = sum(r.energy_j or 0.0 for r in unique)
    account = replace(two_zones(), rows=unique)
    ledger = add_up(account)
    tight = {"rel": 1e-9, "abs": 1e-9}
    assert ledger.total.energy_j == pytest.approx(expected_j, **tight)
    assert sum(ledger.phases.values()) == pytest.approx(expected_j, **tight)
    assert sum(ledger.workers.values()) == pytest.approx(expected_j, **tight)
    assert sum(c.energy_j for c in ledger.segments.values()) == pytest.approx(expected_j, **tight)
    assert sum(c.operational_g for c in ledger.segments.values()) == pytest.approx(ledger.total.operational_g, **tight)
    again = unique + unique
    shuffled.shuffle(again)
    assert add_up(replace(account, rows=again)) == ledger


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20), st.floats(0, 1e8), st.floats(0, 1500))
def test_cutting_a_row_or_an_intensity_changes_no_grams(parts: list[float], energy_j: float, g_per_kwh: float):
    edges = [0.0]
    for part in parts:
        edges.append(edges[-1] + part)
    cut = [intensity("DE", a, b, g_per_kwh) for a, b in zip(edges, edges[1:], strict=False)]
    charge = Curve.of("DE", cut).charge(at(0), at(edges[-1]), energy_j, 1.1)
    assert charge.operational_g == pytest.approx(energy_j / J_PER_KWH * 1.1 * g_per_kwh, rel=1e-9)
    assert charge.known_j == pytest.approx(energy_j, rel=1e-9)
