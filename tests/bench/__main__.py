"""The benchmarks: speed and memory, as ratios within one run, each with its goal.
In: names of benchmarks, or none for all. Out: tables on stdout, progress on stderr, and all of it as JSON if wanted.
A goal that is missed is shown and fails nothing: `make bench` measures, the tests judge.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.spec import iso
from tests.bench.figure import Options, Section, show

BENCHES = {
    "startup": "startup",
    "reading": "reading",
    "passes": "passes",
    "scale": "scale",
    "metering": "metering",
    "markers": "markers",
    "moving": "moving",
    "oracle": "optimum",
    "simulation": "simulation",
    "forecasts": "forecasts",
    "fleet": "fleet",
    "starting": "starting",
    "pausing": "pausing",
    "training": "training",
}
"""Each benchmark with its module; quick ones first. `training` is throughput, pause and resume."""


def main() -> None:
    """Measure what was asked for, one after the other."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    options = Options(arguments.data, arguments.whole, arguments.rounds)
    console = Console(width=None if sys.stdout.isatty() else 140)
    load = os.getloadavg()[0]
    console.print(f"{_machine()}, load {load:.1f} at the start", highlight=False)
    began_s = time.monotonic()
    sections = []
    for name in arguments.names or BENCHES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        section = _measure(name, options)
        show(console, section)
        sections.append(section)
    took_s = time.monotonic() - began_s
    missed = [figure.name for section in sections for figure in section.figures if figure.met is False]
    console.print(f"{took_s:.0f} s in all; goals missed: {', '.join(missed) or 'none'}", highlight=False)
    if arguments.json is not None:
        document = {"at": iso(datetime.now(timezone.utc)), "machine": _machine(), "load_at_start": load}
        document["sections"] = [section.to_json() for section in sections]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def _measure(name: str, options: Options) -> Section:
    measure: Callable[[Options], Section] = import_module(f"tests.bench.{BENCHES[name]}").measure
    began_s = time.monotonic()
    try:
        section = measure(options)
    except Exception as fault:  # the others are still worth their time; what went wrong is shown
        traceback.print_exc()
        section = Section(name, remarks=[f"not measured: {type(fault).__name__}: {fault}"])
    section.took_s = time.monotonic() - began_s
    return section


def _machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})"


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Speed and memory, with goals.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHES)}; all without it")
    shared = os.environ.get("LOWTIDE_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(shared), help="folder of the recorded grids")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE, too")
    parser.add_argument("--whole", action="store_true", help="plan every start of the oracle's table (minutes)")
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="turns of each way to train (%(default)s)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}")
    return arguments


if __name__ == "__main__":
    main()
