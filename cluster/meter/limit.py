"""Power limits of a host's GPUs: set while segments that wish for one hold them, given back whatever ends.
In: who holds which GPU with which wish; a Dial. Out: what holds for each owner, or why not; what was found, on disk.
The meter keeps them in step with its charges; `guard` gives back what a meter left behind that never came again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.meter.gpu import Unreadable
from cluster.meter.spool import replace

log = logging.getLogger(__name__)

Key = tuple[str, int]
"""An owner: its segment and rank."""
LOOK_S = 15.0
"""How often limits are compared with what was set: a driver that is loaded anew forgets them."""
NEAR_W = 1.0
"""A limit that reads back within this of what was set is set: some boards round."""


class Dial(Protocol):
    """The power limits of GPUs by UUID. Each method raises Unreadable where the driver refuses."""

    def limit_w(self, uuid: str) -> float:
        """The limit that is set now, in W."""

    def range_w(self, uuid: str) -> tuple[float, float]:
        """The least and the most that can be set, in W."""

    def set_limit_w(self, uuid: str, limit_w: float) -> None:
        """Set it; this takes root."""


@dataclass(frozen=True)
class Wish:
    """The GPUs that an owner holds, and the W that each may draw; None leaves them as they are."""

    uuids: tuple[str, ...]
    limit_w: int | None


@dataclass(frozen=True)
class Cap:
    """The limit in W that held on all of an owner's GPUs; None where none did, and then why, if one was wished."""

    limit_w: int | None
    refused: str | None = None


class Limits:
    """The limits of one host. What was found is on disk before anything is changed. Not thread-safe."""

    def __init__(self, file: Path, dial: Dial | None, guard: Callable[[], None] = lambda: None) -> None:
        self._file, self._dial, self._guard = file, dial, guard
        self._found_w = found_in(file)
        self._set_w: dict[str, int] = {}
        self._stuck: set[str] = set()
        """GPUs that could not be given back; tried again at the next look."""
        self._refused: dict[str, str] = {}
        """By segment: asking again would only fail again."""
        self._caps: dict[Key, Cap] = {}
        self._looked_at_s = 0.0
        if self._found_w:
            guard()

    def follow(self, wishes: Mapping[Key, Wish], at_s: float) -> None:
        """Set what is wished now, and give back what nobody wishes any more; at `at_s` monotonic seconds.

        Where several hold a GPU the highest wish counts, and none at all is the highest. A segment of which one GPU
        cannot be limited runs as if it had wished for nothing, for half a limit is no point to learn from.
        """
        if not self._found_w and not self._caps and all(wish.limit_w is None for wish in wishes.values()):
            return
        if at_s - self._looked_at_s >= LOOK_S:
            self._look()
            self._looked_at_s = at_s
        live = {segment_id for segment_id, _ in wishes}
        self._refused = {segment_id: why for segment_id, why in self._refused.items() if segment_id in live}
        while True:
            wanted = _wanted(wishes, self._refused)
            for uuid in self._found_w.keys() - wanted.keys() - self._stuck:
                self._give_back(uuid)
            reasons = {uuid: why for uuid, limit_w in wanted.items() if (why := self._set(uuid, limit_w)) is not None}
            if not reasons:
                break
            # Whoever wished for that limit is refused; what that leaves for other holders is looked at once more.
            self._refused |= {
                segment_id: reasons[uuid]
                for (segment_id, _), wish in wishes.items()
                for uuid in wish.uuids
                if uuid in reasons and wish.limit_w == wanted[uuid]
            }
        self._set_w = {uuid: limit_w for uuid, limit_w in self._set_w.items() if uuid in wanted}
        self._caps = {
            key: self._cap_now(key, wish, wanted) for key, wish in wishes.items() if wish.limit_w and wish.uuids
        }

    def cap(self, key: Key) -> Cap:
        """What has held for an owner ever since it came; one that wished for nothing has none."""
        return self._caps.get(key, Cap(None))

    def _cap_now(self, key: Key, wish: Wish, wanted: Mapping[str, int]) -> Cap:
        """What holds for an owner, if it is what has held before."""
        before, held = self._caps.get(key), {wanted.get(uuid) for uuid in wish.uuids}
        limit_w = held.pop() if len(held) == 1 else None
        if before is not None and before.refused is not None and before.limit_w in (None, limit_w):
            return before
        if key[0] in self._refused:
            cap = Cap(None, self._refused[key[0]])
        elif before is not None and before.limit_w != limit_w:
            cap = Cap(
                None, f"the limit of its GPUs changed from {_words(before.limit_w)} to {_words(limit_w)} meanwhile"
            )
        elif limit_w != wish.limit_w:
            cap = Cap(limit_w, f"others hold its GPUs, too, with {_words(limit_w)}")
        else:
            return Cap(limit_w)
        log.warning("rank %d of %s runs without its limit of %s W: %s", key[1], key[0], wish.limit_w, cap.refused)
        return cap

    def _set(self, uuid: str, limit_w: int) -> str | None:
        """Limit a GPU; why not, where it cannot be. Never above what was found: that is somebody else's limit."""
        if self._set_w.get(uuid) == limit_w:
            return None
        if self._dial is None or uuid.startswith("MIG-"):
            return "no NVML on this host" if self._dial is None else f"{uuid} is a slice, which has no limit of its own"
        try:
            low_w, high_w = self._dial.range_w(uuid)
            found_w = self._found_w.get(uuid)
            found_w = self._dial.limit_w(uuid) if found_w is None else found_w
            if not low_w <= limit_w <= high_w:
                return f"{uuid} takes {low_w:g} to {high_w:g} W"
            if limit_w > found_w:
                return f"{uuid} is limited to {found_w:g} W already"
            if limit_w < found_w or uuid in self._found_w:
                self._change(self._dial, uuid, found_w, limit_w)
        except (Unreadable, OSError) as fault:
            self._give_back(uuid)
            return f"{uuid}: {fault}"
        self._set_w[uuid] = limit_w
        return None

    def _change(self, dial: Dial, uuid: str, found_w: float, limit_w: int) -> None:
        """Set a limit, with what was found on disk before it and somebody to see to it after; Unreadable if not."""
        unguarded = not self._found_w
        self._keep({**self._found_w, uuid: found_w})
        dial.set_limit_w(uuid, limit_w)
        if unguarded:
            self._guard()
        told_w = dial.limit_w(uuid)
        if abs(told_w - limit_w) > NEAR_W:
            raise Unreadable(f"set to {limit_w} W, it says {told_w:g} W")

    def _give_back(self, uuid: str) -> None:
        """Set what was found. A GPU that refuses stays on the list, and is tried again later."""
        self._set_w.pop(uuid, None)
        if uuid not in self._found_w or self._dial is None:
            return
        self._stuck.add(uuid)
        if restored(self._dial, {uuid: self._found_w[uuid]}):
            try:
                self._keep({other: found_w for other, found_w in self._found_w.items() if other != uuid})
            except OSError as fault:
                log.warning("%s cannot be written (%s); it still names GPU %s", self._file, fault, uuid)
            else:
                self._stuck.discard(uuid)

    def _look(self) -> None:
        """Forget what was set where it does not hold any more, so that it is set again."""
        self._stuck.clear()
        for uuid, limit_w in list(self._set_w.items()):
            try:
                told_w = self._dial.limit_w(uuid) if self._dial is not None else limit_w
            except Unreadable:
                continue  # lost: looked at again once it is back
            if abs(told_w - limit_w) > NEAR_W:
                log.warning(
                    "GPU %s: its limit is %g W and not the %d W that were set; set again", uuid, told_w, limit_w
                )
                del self._set_w[uuid]

    def _keep(self, found_w: Mapping[str, float]) -> None:
        if found_w != self._found_w:
            write_found(self._file, found_w)
            self._found_w = dict(found_w)


def found_in(file: Path) -> dict[str, float]:
    """The limits in W, by UUID, that were found before they were changed; none where nothing is changed."""
    try:
        return {str(uuid): float(found_w) for uuid, found_w in json.loads(file.read_text("utf-8")).items()}
    except FileNotFoundError:
        return {}


def write_found(file: Path, found_w: Mapping[str, float]) -> None:
    """Write them, on disk when this returns; the file is gone where there are none."""
    if found_w:
        replace(file, json.dumps(found_w))
    else:
        file.unlink(missing_ok=True)


def restored(dial: Dial, found_w: Mapping[str, float]) -> list[str]:
    """Set what was found; gives the GPUs of which that is so now."""
    done = []
    for uuid, limit_w in found_w.items():
        try:
            if abs(dial.limit_w(uuid) - limit_w) > NEAR_W:
                dial.set_limit_w(uuid, limit_w)
            done.append(uuid)
        except Unreadable as fault:
            log.warning("GPU %s keeps its power limit (%s); it was %g W", uuid, fault, limit_w)
    return done


def _wanted(wishes: Mapping[Key, Wish], refused: Iterable[str]) -> dict[str, int]:
    """The limit of each GPU that all of its holders wish to have limited: their highest."""
    wanted: dict[str, int | None] = {}
    for (segment_id, _), wish in wishes.items():
        limit_w = None if segment_id in refused else wish.limit_w
        for uuid in wish.uuids:
            other_w = wanted.get(uuid, limit_w)
            wanted[uuid] = None if limit_w is None or other_w is None else max(limit_w, other_w)
    return {uuid: limit_w for uuid, limit_w in wanted.items() if limit_w is not None}


def _words(limit_w: int | None) -> str:
    return "no limit" if limit_w is None else f"{limit_w} W"
