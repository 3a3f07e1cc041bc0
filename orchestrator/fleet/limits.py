"""The limits that a way to run counts against: its zone's GPUs, and those of parts of the zone: compiled.
In: a Table's rows and arrays by limit and slot. Out: the sum of their worths, the least that is left.
`bound`, `settle` and `room` ask it wherever a GPU is counted; a zone without parts has one limit.
"""

from __future__ import annotations

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Ints
from orchestrator.fleet.table import Rows


@compiled
def worth_of(rows: Rows, way: int, cell: int, worth: Floats) -> float:
    """What a GPU-second of a way is worth in a slot."""
    found = worth[rows.way_limits[way, 0], cell]
    for place in range(1, rows.way_limits.shape[1]):
        if rows.way_limits[way, place] >= 0:
            found += worth[rows.way_limits[way, place], cell]
    return float(found)


@compiled
def least_of(rows: Rows, way: int, cell: int, gpus: Ints) -> int:
    """The least of what an array of shape (limits, slots) has for a way in a slot."""
    found = gpus[rows.way_limits[way, 0], cell]
    for place in range(1, rows.way_limits.shape[1]):
        if rows.way_limits[way, place] >= 0:
            found = min(found, gpus[rows.way_limits[way, place], cell])
    return int(found)


@compiled
def least_in_part(rows: Rows, way: int, cell: int, part: int, left: Ints) -> int:
    """The same of an array of shape (limits, slots, parts), in a part of a slot."""
    found = left[rows.way_limits[way, 0], cell, part]
    for place in range(1, rows.way_limits.shape[1]):
        if rows.way_limits[way, place] >= 0:
            found = min(found, left[rows.way_limits[way, place], cell, part])
    return int(found)
