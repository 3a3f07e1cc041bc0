"""Whether a running segment hangs: for longer than any honest one takes, it tells no other step and no other phase.
In: a segment, what passes see of it, what was measured of jobs like it. Out: why it is to be killed, or an empty text.
`settle` counts the quiet seconds, `consider` asks for every segment that runs, `decide` ends it.

The seconds are kept in the store, for a controller may be a new process each minute, and they are those that passes
saw: neither a clock that is set nor an hour without a controller makes a segment hang.
"""

from __future__ import annotations

from datetime import datetime

from cluster.api import Progress
from jobs.spec import JobSpec
from orchestrator.controller.learn import Learned
from orchestrator.site import Site
from orchestrator.store.schema import Segment

SEEN_S = 120.0
"""A pass vouches for so many seconds before it at most."""
COUNTED_S = 5.0
"""What a pass sees is written no more often than this, for passes over a thousand segments would do little else."""
TIMES = 20.0
"""How much longer than what was measured an honest part of a segment may take."""
TRAINING_SHARE = 1 / 6
"""Of the site's patience: between two steps, nothing slow happens."""
GONE_S = 900.0
"""A segment that was killed so long ago and still shows is lost all the same: its host does not answer either."""


def notice(segment: Segment, progress: Progress | None, ending: bool, now: datetime) -> None:
    """Count the seconds since a pass last saw another step or phase; of one that is `ending`, all of them."""
    seen_s = (now - segment.looked_at).total_seconds() if segment.looked_at is not None else 0.0
    gets_on = not ending and progress is not None and _gets_on(segment, progress)
    if progress is not None:
        segment.phase = progress.phase
    if gets_on:
        segment.quiet_s = 0.0
    if segment.looked_at is None or not 0.0 <= seen_s < COUNTED_S:
        segment.quiet_s += 0.0 if gets_on else min(max(0.0, seen_s), SEEN_S)
        segment.looked_at = now


def _gets_on(segment: Segment, progress: Progress) -> bool:
    told = (progress.phase, progress.trained_steps)
    return told != (segment.phase, segment.trained_steps) or progress.step > segment.step


def stuck(segment: Segment, ending: bool, steps: int | None, spec: JobSpec, learned: Learned, site: Site) -> str:
    """Why a running segment is to be killed; empty where it is not.

    A script that never tells a step is let be until it is to end.
    """
    if segment.hung is not None:
        return segment.hung
    if spec.is_blind() and not ending:
        return ""
    if segment.quiet_s <= patience_s(segment, ending, steps, spec, learned, site):
        return ""
    minutes = f"{segment.quiet_s / 60:.0f} min"
    if ending:
        return f"it did not end within {minutes} of being told to"
    if segment.phase is None:
        return f"its workers said nothing for {minutes}"
    said = f"no further step, and no phase but {segment.phase!r}, for {minutes}"
    return f"{said}; where that is honest work, raise the site's stuck_after"


def patience_s(segment: Segment, ending: bool, steps: int | None, spec: JobSpec, learned: Learned, site: Site) -> float:
    """Seconds for which it may be quiet: of a training segment by its own steps, else by starts and stops like its.

    One that only cannot be heard any more is let end by itself, and save, when its `run_until` comes.
    """
    start_s, by_itself_s = learned.pause.resume_s + learned.pause.move_s, site.renew_within_s + learned.stop_s
    least_s = max(site.stuck_after_s, by_itself_s)
    if ending:
        return max(least_s, TIMES * (start_s + learned.stop_s))
    trains = segment.phase == "train" and segment.trained_steps > 0 and spec.script is None
    if trains and (steps is None or segment.step < steps):
        # After the last step it may wait for a checkpoint that is being written.
        each_s = segment.trained_s / segment.trained_steps
        return max(TRAINING_SHARE * site.stuck_after_s, by_itself_s, TIMES * each_s)
    return max(least_s, TIMES * max(start_s, learned.stop_s))
