"""Operating points that a plan may use: measured ones, and those between them that follow from what was measured.
In: measured points by mode (workers, power limit), the modes that a job may run at. Out: points; what to measure next.
`frame` gives them to the planner; `decide` starts a short segment for a mode that must be measured first.

Nothing is assumed beyond what was measured: the widest and the narrowest mode are measured first, and each power limit
at the widest. Widths between two measured ones take the time a step that Amdahl's law gives between these, a + b / n
(Amdahl, "Validity of the single processor approach", AFIPS 1967), and watts in a straight line. A limit changes speed
and watts at every width by the ratios that it has at the nearest width where both were measured. What a segment then
measures itself replaces such a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.plan.problem import Mode, OperatingPoint


def points(modes: Sequence[Mode], measured: Mapping[Mode, OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """The points of those of the `modes` that are measured or lie between measured ones, in their order."""
    found = (measured.get(mode) or _between(mode, measured) or _limited(mode, modes, measured) for mode in modes)
    return tuple(point for point in found if point is not None)


def to_measure(modes: Sequence[Mode], measured: Iterable[Mode], tried: Iterable[Mode]) -> Mode | None:
    """The next mode to measure: the widest, the narrowest, then each further limit at the widest; None when done.

    `modes` are the most powerful first; those that were `tried` in vain are not tried again.
    """
    known = {*measured, *tried}
    widest, limit = modes[0]
    narrowest = min(workers for workers, _ in modes)
    ends = [(widest, limit), (narrowest, limit), *(mode for mode in modes if mode[0] == widest)]
    return next((mode for mode in ends if mode not in known), None)


def _between(mode: Mode, measured: Mapping[Mode, OperatingPoint]) -> OperatingPoint | None:
    """A point between the two nearest measured widths under the same limit."""
    workers, limit = mode
    widths = sorted(width for width, under in measured if under == limit)
    low = max((width for width in widths if width < workers), default=None)
    high = min((width for width in widths if width > workers), default=None)
    if low is None or high is None:
        return None
    a, b = measured[low, limit], measured[high, limit]
    share = (1 / workers - 1 / high) / (1 / low - 1 / high)
    step_s = (1 - share) / b.steps_per_s + share / a.steps_per_s
    power_w = a.power_w + (b.power_w - a.power_w) * (workers - low) / (high - low)
    return OperatingPoint(workers, 1 / step_s, power_w, limit)


def _limited(mode: Mode, modes: Sequence[Mode], measured: Mapping[Mode, OperatingPoint]) -> OperatingPoint | None:
    """A point under another limit than the widths were measured with, by the ratios at the nearest width."""
    workers, limit = mode
    for _, other in modes:
        base = measured.get((workers, other)) or _between((workers, other), measured)
        both = [width for width, under in measured if under == limit and (width, other) in measured]
        if other == limit or base is None or not both:
            continue
        nearest = min(both, key=lambda width: abs(width - workers))
        limited, free = measured[nearest, limit], measured[nearest, other]
        steps_per_s = base.steps_per_s * limited.steps_per_s / free.steps_per_s
        return OperatingPoint(workers, steps_per_s, base.power_w * limited.power_w / free.power_w, limit)
    return None
