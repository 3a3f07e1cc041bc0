"""A cluster of plain values behind cluster.api's protocol, for what would need thousands of machines or exact faults.
In: nodes. Out: segments that advance when told to; every order is kept for the test to read.
Real Ray is in tests/integration; this stands in only where it cannot be had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cluster.api import Desire, Gauge, MeterRow, Node, SegmentOrder, SegmentView
from jobs.spec import Refused, StaleEpoch, Unavailable


@dataclass
class StandInCluster:
    """Every segment that was started, with its newest desire; `down` makes every call Unavailable."""

    free: list[Node] = field(default_factory=list)
    orders: dict[str, SegmentOrder] = field(default_factory=dict)
    desires: dict[str, Desire] = field(default_factory=dict)
    views: dict[str, SegmentView] = field(default_factory=dict)
    rows: list[MeterRow] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)
    epoch: int = 0
    down: bool = False
    starts: int = 0
    kills: list[str] = field(default_factory=list)
    undying: bool = False
    """Whether what is killed goes on showing."""
    refuses: dict[str, str] = field(default_factory=dict)
    """Why segments of these jobs cannot be started."""
    refused: str | None = None
    """Why power limits cannot be set."""
    dashboard_url: str = "http://127.0.0.1:8265"

    def nodes(self) -> list[Node]:
        """The nodes that the test gave."""
        self._answer()
        return self.free

    def start(self, order: SegmentOrder) -> None:
        """Keep the order; a known id changes nothing."""
        self._answer()
        self._check(order.desire)
        if order.job_id in self.refuses:
            raise Refused(self.refuses[order.job_id])
        if order.segment_id not in self.orders:
            self.orders[order.segment_id] = order
            self.views[order.segment_id] = SegmentView(order.segment_id, "pending")
            self.starts += 1
        self.desires[order.segment_id] = order.desire

    def desire(self, segment_id: str, desire: Desire) -> None:
        """Keep the desire."""
        self._answer()
        self._check(desire)
        self.desires[segment_id] = desire

    def observe(self, segment_ids: Sequence[str]) -> dict[str, SegmentView]:
        """What the test has put into `views`."""
        self._answer()
        return {name: self.views.get(name, SegmentView(name, "lost", message="unknown")) for name in segment_ids}

    def kill(self, segment_id: str) -> None:
        """Forget it."""
        self._answer()
        self.kills.append(segment_id)
        if not self.undying:
            self.views.pop(segment_id, None)

    def logs(self, segment_id: str, follow: bool = False) -> Iterator[str]:
        """Nothing was written."""
        yield ""

    def collect(self, spool: str) -> list[MeterRow]:
        """Rows that were not acknowledged."""
        self._answer()
        return list(self.rows)

    def acknowledge(self, spool: str, rows: Sequence[MeterRow]) -> None:
        """Drop these rows."""
        self._answer()
        self.rows = [row for row in self.rows if row not in rows]

    def publish(self, gauges: Sequence[Gauge]) -> None:
        """Keep the newest figures."""
        self._answer()
        self.gauges = list(gauges)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("Ray does not answer")

    def _check(self, desire: Desire) -> None:
        if desire.epoch < self.epoch:
            raise StaleEpoch("an older controller spoke")
        self.epoch = desire.epoch
