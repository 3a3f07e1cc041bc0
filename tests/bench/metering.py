"""How well eight GPUs are metered, and what that costs, beside CodeCarbon and Zeus on the same stand-in at once.
In: the NVML stand-in with square, sawtooth and bursty loads, counters and sensors that move every 100 ms.
Out: error of the energy of a whole run with its start and its end, and percent of one core while it lasts.

The other two need a virtual environment of their own: LOWTIDE_BENCH_OTHERS names its folder, which is made and filled
from the package index where it is missing. The stand-in answers in microseconds; a real driver takes its own time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure, Options, Section, Table
from tests.nvml import build
from tests.nvml.curves import energy_j

GPUS = 8
SHAPES = ("square", "sawtooth", "bursty")
WINDOW_S = 120.0
"""Long enough that a counter's step of 100 ms at each end, in a burst, is less than the goal."""
STARTED_S = 120.0
OTHERS = ("codecarbon", "zeus")
_UNTOLD: Mapping[str, float | None] = dict.fromkeys(("all", *SHAPES))
_EXPLAINED = "Errors are of the whole window, its start and end included; CodeCarbon tells the sum of all GPUs alone."
COUNTER_PERCENT, POWER_PERCENT, CORE_PERCENT = 0.5, 2.0, 0.5


@dataclass(frozen=True)
class Kind:
    """One process: who meters, how often it reads, and whether the GPUs have counters."""

    who: str
    hz: float
    counter: bool = True
    does: str = ""

    @property
    def name(self) -> str:
        """Its row in the table."""
        return f"{self.who}{', ' + self.does if self.does else ''}"


OURS = (
    Kind("none", 0, does="imported, not started"),
    Kind("lowtide", 1, does="nobody trains"),
    Kind("lowtide", 1, does="8 ranks and a driver"),
    Kind("lowtide", 10, does="8 ranks and a driver"),
    Kind("lowtide", 10, counter=False, does="8 ranks and a driver"),
)
THEIRS = (
    Kind("codecarbon", 1),
    Kind("codecarbon", 10),
    Kind("codecarbon", 10, counter=False),
    Kind("zeus", 0, does="reads at start and end alone"),
    Kind("zeus", 10, counter=False),
)


def measure(options: Options) -> Section:
    """Run every meter beside the others for WINDOW_S."""
    if build.compiler() is None:
        return Section("metering", remarks=["not measured: no C compiler for the NVML stand-in (install gcc)"])
    python, remark = _others()
    kinds = [*OURS, *(THEIRS if python else ())]
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as name:
        epoch_s = time.time() - 1000.37
        library = build.build(Path(name))
        print(f"  {len(kinds)} processes for {WINDOW_S:.0f} s", file=sys.stderr, flush=True)
        running: dict[Kind, subprocess.Popen[str]] = {}
        try:
            for kind in kinds:  # one after the other: Zeus gives up where its processes take long to start
                running[kind] = _start(kind, python, library, epoch_s)
                if not _is_ready(running[kind]):
                    remark += f"; not measured, for it did not start: {kind.who} at {kind.hz:g} Hz"
                    running.pop(kind).wait()
            found = _together(running)
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    return _section(found, epoch_s, remark)


def _section(found: Mapping[Kind, dict[str, Any]], epoch_s: float, remark: str) -> Section:
    percent = {kind: 100 * each["cpu_s"] / each["wall_s"] for kind, each in found.items()}
    base_percent = percent[OURS[0]]
    errors = {
        kind: _errors(each["spans_s"], each["energy_j"], epoch_s) for kind, each in found.items() if each["energy_j"]
    }
    rows = []
    for kind in found:
        shown = [f"{100 * error:.3f}" if error is not None else "" for error in errors.get(kind, _UNTOLD).values()]
        reads = "counter" if kind.counter else "power"
        rows.append([kind.name, reads, f"{kind.hz:g}" if kind.hz else "", *shown, f"{percent[kind]:.3f}"])
    return Section(
        "metering",
        [
            *_own_errors("error, counters", errors[OURS[2]], COUNTER_PERCENT),
            *_own_errors("error, no counter", errors[OURS[4]], POWER_PERCENT),
            Figure("added, idle", percent[OURS[1]] - base_percent, "% of a core", at_most=CORE_PERCENT),
            Figure("added, 8 ranks", percent[OURS[2]] - base_percent, "% of a core", at_most=CORE_PERCENT),
            Figure("added, 8 ranks at 10 Hz", percent[OURS[3]] - base_percent, "% of a core"),
            Figure("added, power at 10 Hz", percent[OURS[4]] - base_percent, "% of a core"),
        ],
        [Table("Meters", ("meter", "reads", "Hz", *(f"{name} %" for name in _UNTOLD), "% of a core"), rows)],
        [remark, _EXPLAINED, "An idle Ray actor uses about 0.65 % of a core by itself; lowtide's process is one."],
    )


def _own_errors(name: str, errors: Mapping[str, float | None], at_most: float) -> list[Figure]:
    """Our errors as figures, of all GPUs together and by load."""
    return [Figure(f"{name}, {of}", 100 * (error or 0.0), "%", at_most=at_most) for of, error in errors.items()]


def _errors(
    spans_s: Sequence[tuple[float, float]], told_j: Sequence[float], epoch_s: float
) -> Mapping[str, float | None]:
    """Relative error of all GPUs together, and by load where each GPU is told; each by its own start and end."""
    exact_j = [
        energy_j(SHAPES[index % len(SHAPES)], start_s - epoch_s, end_s - epoch_s)
        for index, (start_s, end_s) in enumerate(spans_s)
    ]
    errors: dict[str, float | None] = {**_UNTOLD, "all": abs(sum(told_j) / sum(exact_j) - 1)}
    if len(told_j) == len(exact_j):
        for first, shape in enumerate(SHAPES):
            errors[shape] = abs(sum(told_j[first :: len(SHAPES)]) / sum(exact_j[first :: len(SHAPES)]) - 1)
    return errors


def _others() -> tuple[Path | None, str]:
    """The Python that has the other meters, made on request; else None. And what to say of it."""
    named = os.environ.get("LOWTIDE_BENCH_OTHERS")
    if not named:
        return None, "CodeCarbon and Zeus: not measured; LOWTIDE_BENCH_OTHERS=FOLDER installs them there and does"
    python = Path(named).resolve() / "bin" / "python"
    if not python.exists():
        print(f"  installing {' and '.join(OTHERS)} into {named}", file=sys.stderr, flush=True)
        venv.create(named, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *OTHERS], check=True)
    asked = "from importlib.metadata import version; print(*[f'{n} {version(n)}' for n in ('codecarbon', 'zeus')])"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    if told.returncode:
        return None, f"CodeCarbon and Zeus: not measured; {named} does not have both (delete it to install them)"
    return python, f"beside {told.stdout.strip()}"


def _start(kind: Kind, python: Path | None, library: Path, epoch_s: float) -> subprocess.Popen[str]:
    """The kind's process, as it gets ready."""
    settings = {"devices": str(GPUS), "shapes": ",".join(SHAPES), "epoch": repr(epoch_s)}
    settings |= {"step_ms": "100", "sensor_ms": "100", "no_counter": "" if kind.counter else "1"}
    environment = build.environment(library, **settings)
    if kind in THEIRS:
        environment["PATH"] = os.pathsep.join([str(build.SOURCE.parent), environment["PATH"]])
        command = [str(python), str(Path(__file__).with_name("others.py")), kind.who]
    else:
        does = "none" if kind is OURS[0] else "idle" if kind is OURS[1] else "ranks"
        folder = library / str(len(list(library.iterdir())))
        folder.mkdir()
        command = [sys.executable, "-m", "tests.bench.meters", does, str(folder)]
    command += [repr(kind.hz), repr(WINDOW_S), str(GPUS)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _is_ready(process: subprocess.Popen[str]) -> bool:
    """Wait until it says so; False where it ended before."""
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        if not line:
            return False
    return True


def _together(running: Mapping[Kind, subprocess.Popen[str]]) -> dict[Kind, dict[str, Any]]:
    """What each told, started at once."""
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return {
        kind: json.loads(process.communicate(timeout=WINDOW_S + STARTED_S)[0].splitlines()[-1])
        for kind, process in running.items()
    }
