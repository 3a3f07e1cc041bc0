"""The control actor: desired state down to segments, their progress and results up.
In: desires from the controller, reports from segments. Out: the newest of either to whoever asks.
RayCluster asks it for views; each segment's rank 0 asks it for its desire, twice a second.

What it holds is soft: an actor that Ray restarted is empty, and fills again with the next report of each running
segment, which carries the desire it last saw. It also hosts the metrics exporter: an idle actor costs a process of
80 MB and 0.65 % of a core, and publishing a few gauges once a pass does not earn one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from cluster.api import Desire, Ended, Gauge, Progress, SegmentResult
from cluster.cap import together
from cluster.meter.limit import Cap
from cluster.metrics import Exporter
from jobs.spec.errors import StaleEpoch

NAMESPACE = "lowtide"
NAME = "control"
KEPT_RESULTS = 256
"""Results that stay; older ones are in the store by then, and beside the checkpoints in any case."""


@dataclass
class Segment:
    """What is known of one segment."""

    desire: Desire
    progress: Progress | None = None
    result: SegmentResult | None = None
    halted: bool = False
    """Asked to stop from inside the cluster (SIGTERM, a node that drains): no renewal undoes it."""
    why: str = ""
    """What halted it, in words."""
    given_up: bool = False
    """The controller kills it: its driver shall not wait for a checkpoint."""
    caps: dict[int, Cap] = field(default_factory=dict)
    """What power limit holds, by rank, where it wished for one."""
    ranks: int = 0

    def seen(self) -> Progress | None:
        """Its progress, with the power limit under which it runs."""
        if self.progress is None or not self.caps:
            return self.progress
        cap = together(self.caps, self.ranks)
        return replace(self.progress, power_limit_w=cap.limit_w, power_limit_refused=cap.refused)


@dataclass(frozen=True)
class Report:
    """What `views` tells of one segment."""

    progress: Progress | None
    result: SegmentResult | None
    why: str = ""
    """What halted it from inside the cluster."""


class Control:
    """One for a cluster. Every method is short and never waits: the actor runs them one after the other."""

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}
        self._epoch = 0
        self._exporter = Exporter()
        self._secrets: dict[str, Mapping[str, str]] = {}

    def desire(self, segment_id: str, desire: Desire) -> None:
        """Take the controller's word for a segment; StaleEpoch where a newer controller has spoken."""
        self._check(desire.epoch)
        segment = self._segments.setdefault(segment_id, Segment(desire))
        if segment.result is None and not segment.halted:
            segment.desire = desire

    def exchange(self, segment_id: str, last_seen: Desire, progress: Progress | None) -> Desire:
        """Take a segment's progress and the desire it knows; return the newest desire."""
        self._epoch = max(self._epoch, last_seen.epoch)
        segment = self._segments.setdefault(segment_id, Segment(last_seen))
        segment.progress = progress or segment.progress
        return segment.desire

    def limited(self, segment_id: str, last_seen: Desire, rank: int, ranks: int, cap: Cap) -> None:
        """Take the power limit of one of a segment's `ranks`."""
        segment = self._segments.setdefault(segment_id, Segment(last_seen))
        segment.caps[rank], segment.ranks = cap, ranks

    def refused(self, segment_id: str) -> bool:
        """Whether some rank of a segment has no limit though it wished for one."""
        segment = self._segments.get(segment_id)
        return segment is not None and any(cap.limit_w is None and cap.refused for cap in segment.caps.values())

    def cap(self, segment_id: str) -> Cap:
        """The power limit that holds on all ranks of a segment, as they told."""
        segment = self._segments.get(segment_id)
        return Cap(None) if segment is None else together(segment.caps, segment.ranks)

    def keep(self, segment_id: str, secrets: Mapping[str, str]) -> None:
        """Hold a segment's secrets, in this process's memory alone, until the segment is finished."""
        self._secrets[segment_id] = secrets

    def secrets(self, segment_id: str) -> Mapping[str, str] | None:
        """The secrets of a segment, for its workers; None where they went with an earlier process of this actor."""
        return self._secrets.get(segment_id)

    def give_up(self, segment_id: str) -> None:
        """Have the segment's driver end at once when it is told to stop."""
        if segment_id in self._segments:
            self._segments[segment_id].given_up = True

    def halt(self, segment_id: str, last_seen: Desire, ends_as: Ended, why: str = "") -> bool:
        """End a segment at its next step boundary, whatever the controller says afterwards; True to end it at once."""
        segment = self._segments.setdefault(segment_id, Segment(last_seen))
        if not segment.halted:
            now = datetime.now(timezone.utc)
            # One that is ending already keeps its own word for it.
            if segment.desire.run_until > now:
                segment.desire = replace(segment.desire, run_until=now, ends_as=ends_as)
            segment.halted, segment.why = True, why
        return segment.given_up

    def finish(self, segment_id: str, last_seen: Desire, result: SegmentResult) -> None:
        """Take a segment's result; the oldest results beyond KEPT_RESULTS are dropped."""
        segment = self._segments.pop(segment_id, None) or Segment(last_seen)
        segment.result = result
        self._secrets.pop(segment_id, None)
        self._segments[segment_id] = segment
        finished = [name for name, each in self._segments.items() if each.result is not None]
        for name in finished[:-KEPT_RESULTS]:
            del self._segments[name]

    def views(self, segment_ids: Sequence[str]) -> dict[str, Report]:
        """What is known of the segments asked for; those never heard of are left out."""
        known = {name: self._segments[name] for name in segment_ids if name in self._segments}
        return {name: Report(each.seen(), each.result, each.why) for name, each in known.items()}

    def publish(self, samples: Sequence[Gauge]) -> None:
        """Show the controller's figures in the cluster's metrics."""
        self._exporter.publish(samples)

    def _check(self, epoch: int) -> None:
        if epoch < self._epoch:
            raise StaleEpoch(
                f"this controller's lease (epoch {epoch}) has passed to another (epoch {self._epoch}); stop this one"
            )
        self._epoch = epoch


def control_actor() -> Any:
    """The handle of the cluster's control actor, created where there is none; Ray must be attached."""
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)(Control)
    return actor.options(
        name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_concurrency=1
    ).remote()
