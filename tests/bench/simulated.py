"""A Ray cluster of a thousand nodes, simulated behind cluster.api's protocol by the caller's clock.
In: nodes and how fast each kind of job trains. Out: segments that start, train, stop and end; their meters' rows.
`scale` runs the controller on it; nothing here knows the store, and nothing is faster than real segments are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cluster.api import Desire, Gauge, MeterRow, Node, Progress, SegmentOrder, SegmentResult, SegmentView
from jobs.spec import StaleEpoch

START_S, STOP_S = 40.0, 4.0
IDLE_GPU_W, CPU_W = 60.0, 15.0
_MINUTE = timedelta(minutes=1)
_PARTS_S = {"driver": 6.0, "workers": 9.0, "imports": 12.0, "step_end": 0.5, "checkpoint": 2.5, "publish": 0.5}


@dataclass(frozen=True)
class Speed:
    """How one worker of a kind of job trains; more of them take 8 % of what each adds."""

    steps_per_s: float
    watts: float

    def of(self, workers: int) -> float:
        """Steps a second of so many workers."""
        return self.steps_per_s * (1 + 0.92 * (workers - 1))


@dataclass
class _Segment:
    order: SegmentOrder
    begun: datetime
    start_step: int
    steps: int
    steps_per_s: float
    watts: float
    placed: list[tuple[str, int]]
    """Node and GPU of each rank."""
    desire: Desire
    result: SegmentResult | None = None

    def trained_s(self, at: datetime) -> float:
        """Seconds that it has trained, at most until its last step or its wanted end."""
        until = min(at, self.desire.run_until)
        all_s = (self.steps - self.start_step) / self.steps_per_s
        return min(all_s, max(0.0, (until - self.begun).total_seconds() - START_S))

    def step(self, at: datetime) -> int:
        """The last step that is done."""
        return min(self.steps, self.start_step + int(self.trained_s(at) * self.steps_per_s + 1e-6))


@dataclass
class SimulatedRay:
    """Nodes of eight GPUs each; whoever holds `clock` says how late it is."""

    clock: Callable[[], datetime]
    speed_of: Callable[[SegmentOrder], Speed]
    zones: dict[str, str]
    """Each node's zone."""
    gpus: int = 8
    dashboard_url: str = "http://127.0.0.1:8265"
    gauges: Sequence[Gauge] = ()
    saved: dict[str, int] = field(default_factory=dict)
    """Each job's step at its newest checkpoint."""
    _free: dict[str, set[int]] = field(default_factory=dict)
    _segments: dict[str, _Segment] = field(default_factory=dict)
    _running: dict[str, _Segment] = field(default_factory=dict)
    _rows: list[MeterRow] = field(default_factory=list)
    _metered_until: datetime | None = None
    _epoch: int = 0
    _seq: int = 0

    def __post_init__(self) -> None:
        self._free = {node: set(range(self.gpus)) for node in self.zones}

    def nodes(self) -> list[Node]:
        """Every node with its free GPUs."""
        size = float(self.gpus)
        return [
            Node(node, node, zone, size, 8 * size, float(len(self._free[node])), 8.0 * len(self._free[node]))
            for node, zone in self.zones.items()
        ]

    def start(self, order: SegmentOrder) -> None:
        """Place the workers on free GPUs of the zone; with too few of them the segment waits in vain, as in Ray."""
        self._check(order.desire)
        if order.segment_id in self._segments:
            return
        assert order.spec.training is not None and order.spec.training.steps is not None
        placed = self._place(order)
        speed = self.speed_of(order)
        segment = _Segment(
            order, self.clock(), self.saved.get(order.job_id, 0), order.spec.training.steps,
            speed.of(order.workers), speed.watts, placed, order.desire,
        )  # fmt: skip
        self._segments[order.segment_id] = segment
        if placed:
            self._running[order.segment_id] = segment

    def desire(self, segment_id: str, desire: Desire) -> None:
        """Renew or end a segment."""
        self._check(desire)
        segment = self._segments.get(segment_id)
        if segment is not None and segment.result is None:
            segment.desire = desire

    def observe(self, segment_ids: Sequence[str]) -> dict[str, SegmentView]:
        """What has become of each by now."""
        now = self.clock()
        return {segment_id: self._view(segment_id, now) for segment_id in segment_ids}

    def kill(self, segment_id: str) -> None:
        """End a segment without a checkpoint."""
        segment = self._running.pop(segment_id, None)
        if segment is not None:
            self._free_of(segment)
            del self._segments[segment_id]

    def logs(self, segment_id: str, follow: bool = False) -> Iterator[str]:
        """Nothing is written."""
        yield ""

    def collect(self, spool: str) -> list[MeterRow]:
        """The rows of whole minutes; meters cut all of theirs at the minute's edge."""
        minute = self.clock().replace(second=0, microsecond=0)
        if self._metered_until is None:
            self._metered_until = minute
        while self._metered_until < minute:
            self._rows += self._minute(self._metered_until)
            self._metered_until += _MINUTE
        return list(self._rows)

    def acknowledge(self, spool: str, rows: Sequence[MeterRow]) -> None:
        """Drop the rows up to the last of these."""
        if rows:
            last = rows[-1].seq
            self._rows = [row for row in self._rows if row.seq > last]

    def publish(self, gauges: Sequence[Gauge]) -> None:
        """Keep the newest figures."""
        self.gauges = gauges

    def _view(self, segment_id: str, now: datetime) -> SegmentView:
        segment = self._segments.get(segment_id)
        if segment is None:
            return SegmentView(segment_id, "lost", message="no such job")
        if segment.result is None:
            self._end_if_due(segment, now)
        if segment.result is not None:
            return SegmentView(segment_id, "ended", self._progress(segment, segment.result.at), segment.result)
        began = (now - segment.begun).total_seconds() >= START_S and bool(segment.placed)
        return SegmentView(segment_id, "running", self._progress(segment, now)) if began else _pending(segment_id)

    def _end_if_due(self, segment: _Segment, now: datetime) -> None:
        step = segment.step(now)
        done = step >= segment.steps
        if not (done or segment.desire.run_until <= now):
            return
        self.saved[segment.order.job_id] = step
        ended = "done" if done else segment.desire.ends_as
        metrics = {"loss": 2.5}
        segment.result = SegmentResult(now, ended, step, segment.steps, metrics, _PARTS_S, 300_000_000)
        self._running.pop(segment.order.segment_id, None)
        self._free_of(segment)

    def _progress(self, segment: _Segment, at: datetime) -> Progress:
        step = segment.step(at)
        return Progress(at, "train", step, segment.steps, 2.5, step - segment.start_step, segment.trained_s(at))

    def _place(self, order: SegmentOrder) -> list[tuple[str, int]]:
        placed: list[tuple[str, int]] = []
        for node, free in self._free.items():
            if self.zones[node] == order.zone:
                placed += [(node, gpu) for gpu in sorted(free)[: order.workers - len(placed)]]
            if len(placed) == order.workers:
                break
        if len(placed) < order.workers:
            return []
        for node, gpu in placed:
            self._free[node].discard(gpu)
        return placed

    def _free_of(self, segment: _Segment) -> None:
        for node, gpu in segment.placed:
            self._free[node].add(gpu)

    def _minute(self, start: datetime) -> Iterator[MeterRow]:
        """A row of each rank and device and of each idle device, all of one minute."""
        usual = MeterRow("", "", 0, "", start, start + _MINUTE, 0.0, "nvml-counter", "train")
        for segment_id, segment in self._running.items():
            own = replace(usual, job_id=segment.order.job_id, segment_id=segment_id)
            for rank, (node, gpu) in enumerate(segment.placed):
                uuid = f"GPU-{node}-{gpu}"
                yield self._row(own, node, uuid, segment.watts, rank, uuid)
                yield self._row(own, node, "cpu", CPU_W, rank)
        idle = replace(usual, phase="idle")
        for node, free in self._free.items():
            yield self._row(idle, node, "cpu", 5 * CPU_W)
            for gpu in free:
                uuid = f"GPU-{node}-{gpu}"
                yield self._row(idle, node, uuid, IDLE_GPU_W, None, uuid)

    def _row(
        self, like: MeterRow, node: str, device: str, watts: float, rank: int | None = None, uuid: str | None = None
    ) -> MeterRow:
        self._seq += 1
        source = "nvml-counter" if uuid is not None else "rapl"
        return MeterRow(
            f"boot-{node}", device, self._seq, node, like.start, like.end, watts * 60.0, source, like.phase,  # type: ignore[arg-type]
            like.job_id, like.segment_id, rank, uuid,
        )  # fmt: skip

    def _check(self, desire: Desire) -> None:
        if desire.epoch < self._epoch:
            raise StaleEpoch("an older controller spoke")
        self._epoch = desire.epoch


def _pending(segment_id: str) -> SegmentView:
    return SegmentView(segment_id, "pending")
