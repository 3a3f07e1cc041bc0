"""Our meter in a process of its own, for the benchmark of metering.
In: `python -m tests.bench.meters none|idle|ranks FOLDER HZ SECONDS GPUS`, then a line on stdin to begin.
Out: `ready`, then JSON: CPU seconds while it lasted, and of each GPU its start, its end and the joules between them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PASS_S = 15.0
WARM_S = 3.0


def main(does: str, folder: Path, hz: float, window_s: float, gpu_count: int) -> None:
    """Meter for a while."""
    from cluster.meter.meter import Meter
    from cluster.meter.nvml import devices
    from cluster.meter.owner import Owner
    from cluster.meter.spool import Spool

    gpus = devices()
    assert len(gpus) == gpu_count
    meter = None
    workers: list[subprocess.Popen[bytes]] = []
    if does != "none":
        meter = Meter(Spool(folder, "bench"), 900.0, gpus, node="bench")
        meter.start(on_fault=lambda: None, tick_s=1 / hz)
    print("ready", flush=True)
    sys.stdin.readline()
    started_s: list[float] = []
    if meter is not None and does == "ranks":
        workers = [subprocess.Popen(["sleep", "600"]) for _ in range(gpu_count + 1)]
        for rank, worker in enumerate(workers, start=-1):
            meter.register(Owner("job", "job-1", rank, worker.pid, (gpus[rank].uuid,) if rank >= 0 else ()))
            meter.mark("job-1", rank, "train")
            started_s.append(time.time())
    rows: list[Any] = []
    time.sleep(WARM_S)
    began_s, spent_s = time.monotonic(), time.process_time()
    while (left_s := began_s + window_s - time.monotonic()) > 0:
        time.sleep(min(PASS_S, left_s))
        if meter is not None and does == "ranks":
            rows += (taken := meter.pull())
            meter.acknowledge([(row.device, row.seq) for row in taken])
    told: dict[str, Any] = {"cpu_s": time.process_time() - spent_s, "wall_s": time.monotonic() - began_s}
    told |= {"spans_s": [], "energy_j": []}
    for rank, start_s in enumerate(started_s[1:]):
        assert meter is not None
        end_s = time.time()
        meter.release("job-1", rank)
        rows += (taken := meter.pull())
        meter.acknowledge([(row.device, row.seq) for row in taken])
        mine = [row for row in rows if row.uuid == gpus[rank].uuid and row.rank == rank and row.phase == "train"]
        told["spans_s"].append((start_s, end_s))
        told["energy_j"].append(sum(row.energy_j for row in mine))
    for worker in workers:
        worker.kill()
        worker.wait()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
