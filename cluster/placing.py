"""A segment that waits for its workers' place: somebody took the room between the controller's look and Ray's placing.
In: the placement groups of the segment's driver, asked for until they are placed. Out: a note, while it waits; seconds.
The driver watches; the control actor shows the note as the segment's progress, and `status` as the job's reason.

Ray Train waits inside `fit` for the placement group that it makes for the workers, and says so in its log alone. A
group's id ends with the id of the Ray job that made it, so the driver knows its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from cluster.api import Desire, Progress
from jobs.spec.units import iso

PERIOD_S = 1.0
SAID_AFTER_S = 5.0
"""Placing takes a moment where there is room; a wait is said once it is longer."""
ANSWER_TIMEOUT_S = 10.0

Groups = Callable[[], Mapping[str, Mapping[str, Any]]]
"""Ray's placement groups by their id, in hex."""


class PlaceWatch:
    """One for a segment's driver; a thread of its own asks, until the workers have their place."""

    def __init__(self, segment_id: str, desire: Desire, ray_job: str, groups: Groups | None = None) -> None:
        self._segment_id, self._desire, self._ray_job = segment_id, desire, ray_job
        self._groups = groups or _groups
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lowtide-placing", daemon=True)
        self.waited_s = 0.0
        """Seconds that the workers waited for their place, so far as they were said to wait."""

    def open(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._ending.set()

    def _watch(self) -> None:
        from ray.exceptions import RayError

        since: tuple[float, datetime] | None = None
        said = False
        while not self._ending.wait(PERIOD_S):
            try:
                states = states_of(self._groups(), self._ray_job)
                if states and all(state == "CREATED" for state in states):
                    if said:
                        self._tell("")
                    return
                if not states:  # not made yet
                    continue
                since = since or (time.monotonic(), datetime.now(timezone.utc))
                waited_s = time.monotonic() - since[0]
                if waited_s >= SAID_AFTER_S:
                    self.waited_s = waited_s
                    if not said:
                        self._tell(note(self._segment_id, since[1]))
                        said = True
            except (RayError, RuntimeError, ValueError, OSError):  # Ray is gone for now: asked again
                continue

    def _tell(self, text: str) -> None:
        import ray

        from cluster.control import control_actor

        if text:
            print(f"lowtide: {text}", flush=True)
        now = datetime.now(timezone.utc)
        progress = Progress(now, "start", 0, 0, None, 0, 0.0, note=text)
        reply = control_actor().exchange.remote(self._segment_id, self._desire, progress)
        ray.get(reply, timeout=ANSWER_TIMEOUT_S)


def note(segment_id: str, since: datetime) -> str:
    """What the user shall know."""
    return f"segment {segment_id} waits for its workers' place since {iso(since)}: others took the room"


def states_of(groups: Mapping[str, Mapping[str, Any]], ray_job: str) -> list[str]:
    """The states of the placement groups that a Ray job made and that still are."""
    own = [each["state"] for name, each in groups.items() if name.endswith(ray_job)]
    return [state for state in own if state != "REMOVED"]


def _groups() -> Mapping[str, Mapping[str, Any]]:
    from ray.util import placement_group_table

    found: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return found
