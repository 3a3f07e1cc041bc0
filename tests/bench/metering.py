"""What metering eight GPUs costs: CPU time of a meter's process beside the same process without its meter.
In: the NVML stand-in with eight devices. Out: percent of one core.
`measure` starts itself once for each kind, all at the same time: `python -m tests.bench.metering KIND SECONDS FOLDER`.

The stand-in answers in microseconds; a real driver's calls take its own time, which no process without a GPU shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.figure import Figure, Options, Section, Table
from tests.nvml import build

GPUS = 8
WINDOW_S = 60.0
PASS_S = 15.0
GOAL_PERCENT = 0.5
KINDS = {
    "none": "imported, not started",
    "idle": f"{GPUS} GPUs at 1 Hz, nobody trains",
    "ranks": f"{GPUS} GPUs at 1 Hz, {GPUS} ranks and a driver, pulled every {PASS_S:.0f} s",
}


def measure(options: Options) -> Section:
    """Run the kinds beside one another for WINDOW_S."""
    if build.compiler() is None:
        return Section("metering", remarks=["not measured: no C compiler for the NVML stand-in (install gcc)"])
    with tempfile.TemporaryDirectory(prefix="lowtide-bench-") as folder:
        library = build.build(Path(folder))
        environment = build.environment(library, devices=str(GPUS), shapes="square,sawtooth,bursty,constant")
        print(f"  {len(KINDS)} processes for {WINDOW_S:.0f} s", file=sys.stderr, flush=True)
        running = {kind: _start(kind, Path(folder), environment) for kind in KINDS}
        found = {kind: json.loads(process.communicate()[0]) for kind, process in running.items()}
    percent = {kind: 100 * each["cpu_s"] / each["wall_s"] for kind, each in found.items()}
    rows = [[KINDS[kind], f"{percent[kind]:.3f}", f"{percent[kind] - percent['none']:.3f}"] for kind in KINDS]
    return Section(
        "metering",
        [
            Figure(
                f"added by metering: {KINDS[kind]}",
                percent[kind] - percent["none"],
                "% of a core",
                at_most=GOAL_PERCENT,
            )
            for kind in ("idle", "ranks")
        ],
        [Table("CPU of the meter's process", ("meter", "% of a core", "added"), rows)],
        [f"GPUs found: {found['ranks']['gpus']}; an idle Ray actor uses about 0.65 % of a core by itself."],
    )


def _start(kind: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench.metering", kind, str(WINDOW_S), str(folder / kind)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _run(kind: str, window_s: float, folder: Path) -> dict[str, Any]:
    """The CPU seconds of this process over the window, after a warm-up of some ticks."""
    from cluster.meter.meter import Meter
    from cluster.meter.nvml import devices
    from cluster.meter.owner import Owner
    from cluster.meter.spool import Spool

    gpus = devices()
    meter = None
    workers: list[subprocess.Popen[bytes]] = []
    if kind != "none":
        meter = Meter(Spool(folder, "bench"), 900.0, gpus, node="bench")
        meter.start(on_fault=lambda: None)
    if meter is not None and kind == "ranks":
        workers = [subprocess.Popen(["sleep", str(window_s + 60)]) for _ in range(GPUS + 1)]
        for rank, worker in enumerate(workers, start=-1):
            meter.register(Owner("job", "job-1", rank, worker.pid, (gpus[rank].uuid,) if rank >= 0 else ()))
            meter.mark("job-1", rank, "train")
    time.sleep(3)
    began_s, spent_s = time.monotonic(), time.process_time()
    while (left_s := began_s + window_s - time.monotonic()) > 0:
        time.sleep(min(PASS_S, left_s))
        if meter is not None and kind == "ranks":
            meter.acknowledge([(row.device, row.seq) for row in meter.pull()])
    used = {"cpu_s": time.process_time() - spent_s, "wall_s": time.monotonic() - began_s, "gpus": len(gpus)}
    if meter is not None:
        meter.stop()
    for worker in workers:
        worker.kill()
        worker.wait()
    return used


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))))
