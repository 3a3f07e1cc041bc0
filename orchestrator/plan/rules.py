"""The user's rules on pauses: how long a segment runs at least, and how many pauses there may be.
In: a Lattice and runs. Out: whether they are kept; for the simple policies, runs that keep them as well as those can.
`plan` asks for both to be kept and for time to spare before the deadline, then for less.

`min_run_s`: every run but the last, which ends the job, lasts at least so long, counted from when its segment began. A
run may be shorter where it fills all of a window, or is cut by the end of the window that it began before. `plan` gives
the rule up where the deadline cannot be met, or the bounds on intensity and renewable share not be kept, with it.

`max_pauses`: a pause is a gap between two runs in which the job could have run by its windows; time that is outside
them is no pause, and neither is a move, nor another width, without a gap. This rule is never given up: where it is in
the way of the bounds, those yield. It is never in the way of the deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from orchestrator.plan.lattice import Lattice
from orchestrator.plan.price import Run, joined, until_done

_SHORT_S = 1e-3


def eased(cells: Lattice) -> Iterator[Lattice]:
    """The lattice with every rule and time to spare, then with less: nothing to spare, runs of any length."""
    early = float(max(0.0, cells.end_s - cells.problem.spare_s))
    if cells.problem.spare_s > 0:
        yield replace(cells, usable=cells.usable & (cells.edge_s[1:] <= early + 1e-6))
    yield cells
    if cells.problem.min_run_s > 0:
        yield replace(cells, problem=replace(cells.problem, min_run_s=0.0))


def least_run_s(cells: Lattice, run: Run) -> float:
    """How long `run` must last, in seconds from its start or, where it goes on already, from now."""
    least_s = cells.problem.min_run_s
    if cells.problem.current is not None and run.start_s <= 0 and run.way == cells.current:
        return cells.problem.owed_s
    return least_s


def pauses(cells: Lattice, runs: Sequence[Run]) -> int:
    """How many of the gaps are pauses; one before the first run is, where something runs now."""
    gaps = [(before.end_s, after.start_s) for before, after in pairwise(runs)]
    if cells.problem.current is not None and runs:
        gaps.insert(0, (0.0, runs[0].start_s))
    return sum(_open_s(cells, start_s, end_s) > _SHORT_S for start_s, end_s in gaps)


def too_short(cells: Lattice, runs: Sequence[Run]) -> int | None:
    """The first run that is shorter than `min_run_s` lets it be."""
    for index, run in enumerate(runs[:-1]):
        if run.end_s - run.start_s < least_run_s(cells, run) - _SHORT_S and not _cut(cells, run):
            return index
    return None


def kept(cells: Lattice, runs: list[Run]) -> bool:
    """Whether the runs keep both rules."""
    most = cells.problem.max_pauses
    return (most is None or pauses(cells, runs) <= most) and too_short(cells, runs) is None and _goes_on(cells, runs)


def keeping(cells: Lattice, runs: list[Run] | None) -> list[Run] | None:
    """Runs that keep the rules: short ones made longer, short gaps filled; then the end of the job comes sooner.

    Where what is made longer is slower than what it replaces, the end comes later. None where none of it can be done
    in cells that may be used.
    """
    for _ in range(3 * len(cells.is_open) + 8):  # each round fills a cell or a part of one
        if runs is None or kept(cells, runs):
            return runs
        longer = _longer(cells, runs)
        if longer is not None and (done := until_done(cells, longer)) is None:
            longer = _extended(cells, longer, len(longer) - 1, cells.end_s)
            done = until_done(cells, longer) if longer is not None else None
        runs = done if longer is not None else None
    return None


def _longer(cells: Lattice, runs: list[Run]) -> list[Run] | None:
    """`runs` with the first fault mended: a run lengthened to its least, else the shortest pause filled."""
    current = cells.current
    if not _goes_on(cells, runs) and current is not None:
        return _extended(cells, [Run(0.0, 0.0, current), *runs], 0, least_run_s(cells, Run(0.0, 0.0, current)))
    index = too_short(cells, runs)
    if index is not None:
        return _extended(cells, runs, index, runs[index].start_s + least_run_s(cells, runs[index]))
    gaps = [(after.start_s - before.end_s, i) for i, (before, after) in enumerate(pairwise(runs))]
    found = [gap for gap in gaps if _open_s(cells, runs[gap[1]].end_s, runs[gap[1] + 1].start_s) > _SHORT_S]
    if current is not None and _open_s(cells, 0.0, runs[0].start_s) > _SHORT_S:
        runs, found = [Run(0.0, 0.0, current), *runs], [(runs[0].start_s, 0), *((gap, i + 1) for gap, i in found)]
    for _, i in sorted(found):
        if (filled := _extended(cells, runs, i, runs[i + 1].start_s)) is not None:
            return filled
    return None


def _extended(cells: Lattice, runs: list[Run], index: int, end_s: float) -> list[Run] | None:
    """`runs` with one that goes on until `end_s`, windows kept, over what came after; None where a bound forbids it."""
    run, end_s = runs[index], min(end_s, cells.end_s)
    spans = _usable(cells, run.way.zone_index, run.end_s, end_s)
    if _open_s(cells, run.end_s, end_s) > sum(b - a for a, b in spans) + _SHORT_S:
        return None
    later = [Run(max(after.start_s, end_s), after.end_s, after.way) for after in runs[index + 1 :]]
    return joined([*runs[: index + 1], *(Run(a, b, run.way) for a, b in spans), *later])


def _goes_on(cells: Lattice, runs: Sequence[Run]) -> bool:
    """Whether what runs now has run, or goes on, for its least time."""
    current = cells.current
    if current is None or not runs:
        return True
    owed_s = least_run_s(cells, Run(0.0, 0.0, current))
    first = runs[0]
    return owed_s <= _SHORT_S or (first.way == current and first.start_s <= 0) or not cells.is_open[:1].any()


def _cut(cells: Lattice, run: Run) -> bool:
    """Whether the run ends where its window does and began where it did, or went on from before now."""
    opens = run.start_s <= 0 and run.way == cells.current or not _is_open(cells, run.start_s - 1e-3)
    return opens and not _is_open(cells, run.end_s + 1e-3)


def _is_open(cells: Lattice, at_s: float) -> bool:
    return 0 <= at_s < cells.end_s and bool(cells.is_open[cells.cell_at(at_s)])


def _open_s(cells: Lattice, start_s: float, end_s: float) -> float:
    """Seconds from `start_s` to `end_s` that the windows allow."""
    length_s = 0.0
    for cell in range(len(cells.is_open)):
        if cells.is_open[cell]:
            a, b = max(start_s, float(cells.edge_s[cell])), min(end_s, float(cells.edge_s[cell + 1]))
            length_s += max(0.0, b - a)
    return length_s


def _usable(cells: Lattice, zone_index: int, start_s: float, end_s: float) -> list[tuple[float, float]]:
    """The parts of [start_s, end_s) in cells that the zone may use."""
    spans = []
    for cell in range(len(cells.is_open)):
        a, b = max(start_s, float(cells.edge_s[cell])), min(end_s, float(cells.edge_s[cell + 1]))
        if a < b and cells.usable[zone_index, cell]:
            spans.append((a, b))
    return spans
