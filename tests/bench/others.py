"""CodeCarbon or Zeus in a process of its own, for the benchmark of metering: used as their manuals say.
In: `python others.py codecarbon|zeus HZ SECONDS GPUS` in an environment that has them, then a line on stdin to begin.
Out: `ready`, then JSON as `meters` tells it. Nothing of this project is imported: it runs in their environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import psutil

HAS_COUNTER = not os.environ.get("NVML_STANDIN_NO_COUNTER")


def cpu_s() -> float:
    """CPU seconds of this process and its live children."""
    me = psutil.Process()
    times = [process.cpu_times() for process in [me, *me.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def codecarbon(hz: float, gpu_count: int) -> tuple[Callable[[], None], Callable[[float, float], list[float]]]:
    """How to start, and how to stop and tell the joules: of all GPUs together, for it tells no more."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA",
        measure_power_secs=1 / hz,
        save_to_file=False,
        log_level="error",
        allow_multiple_runs=True,
        force_cpu_power=100,
    )

    def stop(start_s: float, end_s: float) -> list[float]:
        tracker.stop()
        told = tracker.final_emissions_data
        assert told.gpu_count == gpu_count, "CodeCarbon sees no GPUs"
        return [told.gpu_energy * 3.6e6]

    return tracker.start, stop


def zeus(hz: float, gpu_count: int) -> tuple[Callable[[], None], Callable[[float, float], list[float]]]:
    """The same, of each GPU; a window of its monitor, or its power monitor where there is no counter."""
    from zeus.monitor import PowerMonitor, ZeusMonitor

    if HAS_COUNTER:
        monitor = ZeusMonitor(cpu_indices=[])

        def stop(start_s: float, end_s: float) -> list[float]:
            return list(monitor.end_window("run", sync_execution=False).gpu_energy.values())

        return lambda: monitor.begin_window("run", sync_execution=False), stop
    power = None
    while power is None:
        try:
            power = PowerMonitor(update_period=1 / hz, power_domains=["device_instant"])
        except RuntimeError as fault:  # its process gets 10 s to start, which a busy machine may not give it
            print(fault, file=sys.stderr)
    while not sum((power.get_energy(time.time() - 10, time.time()) or {0: 0.0}).values()):
        time.sleep(0.5)

    def integrate(start_s: float, end_s: float) -> list[float]:
        time.sleep(1)  # its samples come from another process
        return list((power.get_energy(start_s, end_s) or {}).values())

    return lambda: None, integrate


def main(who: str, hz: float, window_s: float, gpu_count: int) -> None:
    """Meter for a while."""
    start, stop = {"codecarbon": codecarbon, "zeus": zeus}[who](hz, gpu_count)
    print("ready", flush=True)
    sys.stdin.readline()
    start()
    start_s, began_s, spent_s = time.time(), time.monotonic(), cpu_s()
    time.sleep(window_s)
    used = {"cpu_s": cpu_s() - spent_s, "wall_s": time.monotonic() - began_s}
    end_s = time.time()
    told_j = stop(start_s, end_s)
    spans_s = [(start_s, end_s)] * gpu_count
    print(json.dumps({**used, "spans_s": spans_s, "energy_j": told_j}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
