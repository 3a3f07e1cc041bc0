"""How long a large site's forecasts take to read: 60 zones, 72 hours ahead, in slots of 5 minutes.
In: 60 answers in Electricity Maps' v4 shape, as bytes. Out: seconds from bytes to Forecasts on one core, and memory.
`tests.bench.__main__` prints it.
"""

from __future__ import annotations

import json
import os
import statistics
import time
import tracemalloc
from datetime import datetime, timedelta, timezone

from orchestrator.signal.forecast import Forecast, from_on
from orchestrator.signal.maps_document import Document
from orchestrator.signal.reading import Reading
from tests.bench.figure import Figure, Options, Section

ZONES = 60
HOURS = 72
SLOT_S = 300
TIMES = 15
GOAL_S = 0.2
NOW = datetime(2026, 8, 22, 17, 2, tzinfo=timezone.utc)


def measure(options: Options) -> Section:
    """Read all answers TIMES times, after one reading that warms up; memory in a reading of its own."""
    bodies = [_answer(zone) for zone in range(ZONES)]
    took_s = []
    for time_ in range(TIMES + 1):
        began_s = time.process_time()
        forecasts = _read(bodies)
        if time_ > 0:
            took_s.append(time.process_time() - began_s)
    slots = sum(len(forecast.points) for forecast in forecasts)
    peak_bytes, kept_bytes = _memory(bodies)
    spread = f"{min(took_s):.3f} to {max(took_s):.3f} s of CPU; {slots} slots, {sum(map(len, bodies)) / 2**20:.1f} MiB"
    return Section(
        "reading",
        [
            Figure(f"{ZONES} zones, {HOURS} h of 5 min", statistics.median(took_s), "s", at_most=GOAL_S, note=spread),
            Figure("the same, fastest", min(took_s), "s"),
            Figure("memory at its peak", peak_bytes / 2**20, "MiB", note="what is kept included; tracemalloc"),
            Figure("memory kept", kept_bytes / 2**20, "MiB", note=f"{kept_bytes / slots:.0f} bytes a slot"),
        ],
        remarks=[f"load {os.getloadavg()[0]:.1f}; one answer's body may have 8 MiB and is parsed alone"],
    )


def _read(bodies: list[bytes]) -> list[Forecast]:
    """As the provider reads them: JSON, the checks, points, and those that have not ended."""
    forecasts = []
    for number, body in enumerate(bodies):
        zone = f"Z{number}"
        document = Document(Reading("electricity_maps", zone), "lifecycle", SLOT_S, lambda: NOW)
        rows, _ = document.forecast(json.loads(body))
        forecasts.append(Forecast(zone, "electricity_maps", "average", from_on(rows.points(), NOW), NOW))
    return forecasts


def _memory(bodies: list[bytes]) -> tuple[int, int]:
    """Bytes at the peak of a reading, and those that its forecasts keep."""
    tracemalloc.start()
    forecasts = _read(bodies)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(forecasts) == len(bodies)
    return peak, kept


def _answer(zone: int) -> bytes:
    """One zone's forecast as the provider writes it: a row more than the hours have slots."""
    start = NOW.replace(minute=0)
    rows = [
        {
            "carbonIntensity": 100 + (zone * 37 + number * 13) % 400 + number % 2 / 2,
            "datetime": (start + timedelta(seconds=number * SLOT_S)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        for number in range(HOURS * 3600 // SLOT_S + 1)
    ]
    return json.dumps(
        {
            "zone": f"Z{zone}",
            "forecast": rows,
            "updatedAt": "2026-08-22T17:02:24.392Z",
            "temporalGranularity": "5_minutes",
        }
    ).encode()
