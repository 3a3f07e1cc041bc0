"""Accounts as a demo and as a cluster would leave them, for the report's tests and for looking at its pictures.
In: nothing. Out: Accounts whose figures follow from simple curves.
The tests beside it turn them into JSON, text, picture and page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import cos, pi

from cluster.api import MeterRow
from orchestrator.accounting.account import Account, Intensity, SegmentFacts, Transfer, ZoneFacts
from orchestrator.plan.problem import PlannedSlot

STEP = {"data": 0.2, "forward": 6.1, "backward": 12.4, "optimizer": 2.2, "communication": 3.9}
"""Seconds by part of a step, in every segment that has ended."""
T0 = datetime(2026, 3, 1, 21, 17, 12, tzinfo=timezone.utc)


def curve(
    zone: str, start: datetime, slot_s: float, count: int, value: Callable[[float], float], **more
) -> list[Intensity]:
    slot = timedelta(seconds=slot_s)
    return [Intensity(zone, start + i * slot, start + (i + 1) * slot, round(value(i), 1), **more) for i in range(count)]


def rows_of(
    segment: SegmentFacts,
    job_id: str,
    end: datetime,
    watts: float,
    device: str,
    source: str,
    cut_s: float,
    load_s: float,
) -> list[MeterRow]:
    """Rows of every worker of a segment: a start at a third of the power, then training, a checkpoint at the end."""
    rows = []
    for rank in range(segment.workers):
        begin, seq = segment.started_at + timedelta(seconds=load_s / 4), 0
        trains, saves = segment.started_at + timedelta(seconds=load_s), end - timedelta(seconds=load_s / 3)
        while begin < end:
            phase = (
                ("start" if segment.n == 1 else "restore")
                if begin < trains
                else "train"
                if begin < saves
                else "checkpoint"
            )
            edge = min(edge for edge in (trains, saves, end, begin + timedelta(seconds=cut_s)) if edge > begin)
            share = {"start": 0.35, "restore": 0.3, "train": 1.0, "checkpoint": 0.5}[phase]
            power_w = watts * share * (1 + 0.04 * cos(seq * 1.7 + rank))
            uuid = f"GPU-{rank:08x}" if source != "estimated" else None
            energy_j = power_w * (edge - begin).total_seconds()
            place = (f"{device}{rank}", segment.n * 100_000 + seq, f"node-{segment.zone.lower()}")
            owner = (job_id, segment.segment_id, rank, uuid)
            rows.append(MeterRow("boot", *place, begin, edge, energy_j, source, phase, *owner))
            begin, seq = edge, seq + 1
    return rows


def demo() -> Account:
    """A day in four minutes on a generated grid: two CPU workers by estimate, one pause."""
    second = timedelta(seconds=1)
    job = "tinystories-distill-20260301"
    segments = [
        SegmentFacts(f"{job}-1", 1, "DEMO", 2, "calibrate", T0 + 3 * second, T0 + 34 * second, "paused", 0, 60),
        SegmentFacts(f"{job}-2", 2, "DEMO", 2, "resume", T0 + 120 * second, T0 + 205 * second, "done", 60, 400),
    ]
    segments = [replace(segment, step_parts_s=STEP) for segment in segments]
    rows = [r for s in segments for r in rows_of(s, job, s.ended_at, 21.0, "cpu", "estimated", 5.0, 11.0)]
    day = curve("DEMO", T0 - 12 * second, 10, 30, lambda i: 270 + 150 * cos((i - 4) / 24 * 2 * pi), provider="demo")
    return Account(
        job, "tinystories-distill", "done", T0 + 207 * second, T0, {"DEMO": ZoneFacts(1.2)}, ("DEMO",), 400, 400,
        {"loss": 1.93, "holdout_loss": 2.01, "samples": 25_600, "tokens": 6_553_600}, segments, rows, day,
        planned=[PlannedSlot(T0 + 118 * second, T0 + 208 * second, "DEMO", 2)],
    )  # fmt: skip


def cluster() -> Account:
    """Two days over two zones with GPUs, a move, a resize, revised forecasts, and more to come."""
    start = datetime(2026, 3, 2, 7, 40, tzinfo=timezone.utc)
    hour = timedelta(hours=1)
    job = "llama-1b-pretrain"
    plan = [
        ("DE", 4, 2.6, 6.0, "start", "paused"),
        ("DE", 8, 9.2, 8.8, "resume", "moved"),
        ("FR", 4, 20, 7.5, "move", "paused"),
        ("FR", 8, 32, None, "resize", None),
    ]
    segments, step = [], 0
    for n, (zone, workers, begin_h, length_h, reason, ended) in enumerate(plan, 1):
        begin = start + begin_h * hour
        end = None if length_h is None else begin + length_h * hour
        done = round(((length_h or 5.0) - 0.1) * 110 * workers**0.9)
        segments.append(
            SegmentFacts(
                f"{job}-{n}",
                n,
                zone,
                workers,
                reason,
                begin,
                end,
                ended,
                step,
                step + done,
                gpus=workers,
                step_parts_s=STEP if end is not None else {},
            )  # fmt: skip
        )
        step += done
    now = start + 37 * hour
    rows = [r for s in segments for r in rows_of(s, job, s.ended_at or now, 412.0, "gpu", "nvml-counter", 180.0, 240.0)]
    midnight = start.replace(hour=0, minute=0)
    de = curve(
        "DE",
        midnight,
        3600,
        31,
        lambda i: 340 + 120 * cos((i - 19) / 12 * pi) + 40 * cos(i / 5),
        provider="electricity_maps",
    )
    de += curve(
        "DE",
        midnight + 31 * hour,
        3600,
        44,
        lambda i: 330 + 120 * cos((i + 31 - 19) / 12 * pi),
        provider="electricity_maps",
        kind="forecast",
    )
    fr = curve(
        "FR",
        midnight,
        3600,
        75,
        lambda i: 62 + 22 * cos((i - 19) / 12 * pi) + (230 if i < 24 else 0) * (1 - i / 24),
        provider="energy_charts",
    )
    return Account(
        job, job, "running", now, start, {"DE": ZoneFacts(1.2, 26.0, 4e-5), "FR": ZoneFacts(1.35, 26.0)}, ("DE", "FR"),
        step, 40_000, {"loss": 2.71, "tokens": 9.1e8, "parameters": 1.1e9, "flops_per_token": 7.2e9}, segments, rows,
        de + fr,
        transfers=[Transfer(start + 18 * hour, "DE", 14_000_000_000)],
        planned=[PlannedSlot(start + a * hour, start + b * hour, "FR", 8) for a, b in ((32, 41), (52, 60))],
        batch_size=512, sequence_length=2048,
    )  # fmt: skip
