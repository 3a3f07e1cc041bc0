"""How fast a model trains and what it draws, by worker count: measured once, read from YAML.
In: a file that maps a model's name to `workers: {throughput, power_w}`, a model's name. Out: operating points.
Throughput may be in any unit, for the unit of work is what one worker does in a second.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, RootModel

from jobs.spec import InputError, Section, parse, read_mapping
from orchestrator.plan import OperatingPoint


class Scale(Section):
    """Throughput and power of all workers together."""

    throughput: float = Field(gt=0)
    power_w: float = Field(gt=0)


class _Profile(RootModel[dict[int, Scale]]):
    """Worker counts of one model."""


ONE_KW = {1: Scale(throughput=1.0, power_w=1000.0)}
"""What runs where no profile is given."""


def read_profile(path: Path, model: str | None) -> tuple[str, dict[int, Scale]]:
    """The model's name and its scales by worker count; `model` may be None where the file holds one only.

    Raises InputError that names file, field and fix.
    """
    mapping = {str(name): value for name, value in read_mapping(path).items()}
    if model is None:
        if len(mapping) != 1:
            raise InputError(f"--model: is missing; {path} holds {', '.join(mapping) or 'none'}")
        model = next(iter(mapping))
    if model not in mapping:
        near = difflib.get_close_matches(model, mapping, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"--model: {path} has no model {model!r}; {hint}it holds {', '.join(mapping)}")
    if not isinstance(mapping[model], dict):
        raise InputError(f"{path}: {model}: is no mapping; write e.g. 1: {{throughput: 100.0, power_w: 300.0}}")
    return model, parse(mapping[model], _Profile, f"{path}: {model}").root


def points_of(scales: Mapping[int, Scale], workers: tuple[int, int] | None) -> tuple[OperatingPoint, ...]:
    """Operating points of the counts in the range (both ends included; None is all), in steps per second of one worker.

    InputError where the range holds none, or the profile has no figures of one worker.
    """
    if 1 not in scales:
        raise InputError("--profile: has no figures of 1 worker, which --length is measured by; add them")
    low, high = workers or (1, max(scales))
    counts = [count for count in sorted(scales) if low <= count <= high]
    if not counts:
        known = ", ".join(str(count) for count in sorted(scales))
        raise InputError(f"--workers: the profile has none of {low}..{high}; it has {known}")
    one = scales[1].throughput
    return tuple(OperatingPoint(n, scales[n].throughput / one, scales[n].power_w) for n in counts)
