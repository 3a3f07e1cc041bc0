"""The main job from end to end, on a grid that is generated and squeezed so that a day lasts minutes.
In: a folder. Out: a site file, two specs, a trained model and a report in that folder.
Everything in it is what users run: the grid server, the site file, the specs, the controller.
"""

from __future__ import annotations

import math
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cluster.api import diagnose, prepare, stop_local
from jobs.spec import JobFault, Unavailable, iso, read_spec
from orchestrator.attach import attach
from orchestrator.cli.desk import Desk
from orchestrator.cli.drive import drive_job
from orchestrator.cli.show import show_report, write_report
from orchestrator.cli.submit import admit_and_store
from orchestrator.controller import utcnow
from orchestrator.controller.learn import Learned, learn
from orchestrator.grid import start
from orchestrator.replay import Replay, read_trace
from orchestrator.site import read_site
from orchestrator.store import Store
from orchestrator.store.jobs import likeness, segments_of

ZONE = "DEMO"
WORKERS = 2
HOUR_S = 15
"""Real seconds that an hour of the generated grid takes at least: a day passes in six minutes."""
HOURS_A_START = 2.6
"""A start may take so many of those hours: on a machine that starts slowly the day is longer, for a pause to pay."""
BEGINS_AT_H = 9
"""Where in its day the grid stands when the main job is submitted: as the clean hours around noon begin."""
TRAIN_H = 7.3
"""Length of the training in hours of that grid: more than one clean stretch holds."""
FINISH_BY_H = 22
"""Before the clean hours of the next noon: this noon's and the night's must do, with a pause between them."""
WARM_UP_STEPS = 40


def demo(out: Path) -> None:
    """Run the main job and report on it; JobFault where it fails."""
    console = Console()
    _check()
    out = out.resolve()
    stop_local(str(out / "state"))  # of an earlier demo that was killed
    shutil.rmtree(out / "state", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    console.print(
        "1  DeepSpeed compiles its communication for CPUs (about a minute, the first time only)", soft_wrap=True
    )
    prepare()
    try:
        with _squeezed(out, HOUR_S) as at:
            console.print("2  A local Ray starts, on loopback")
            console.print(f"   Ray dashboard: {attach(at.site).dashboard_url}", highlight=False)
            learned = _warm_up(at, out, console)
        # The grid begins its day anew, so that the job is submitted at the same hour wherever the warm-up ended.
        hour_s = max(HOUR_S, math.ceil(learned.pause.resume_s / HOURS_A_START))
        with _squeezed(out, hour_s) as at:
            _main_job(at, out, hour_s, learned.points[WORKERS, None].steps_per_s, console)
    finally:
        stop_local(str(out / "state"))


@contextmanager
def _squeezed(out: Path, hour_s: int) -> Iterator[Desk]:
    """A site whose grid is replayed on loopback, an hour of it in `hour_s` seconds."""
    trace = read_trace(write_grid(out / "generated-grid.csv"))
    replay = Replay.begin(trace, utcnow(), speed=3600 / hour_s, start_s=BEGINS_AT_H * 3600)
    with start({ZONE: replay}) as grid:
        site = read_site(_write_site(out / "lowtide.yaml", grid.url, hour_s))
        store = Store(site.store_url)
        try:
            yield Desk(site, store)
        finally:
            store.close()


def _check() -> None:
    """A missing compiler is said now, not after minutes."""
    for finding in diagnose():
        if not finding.ok:
            raise Unavailable(f"{finding.what}: {finding.text}")


def _warm_up(at: Desk, out: Path, console: Console) -> Learned:
    """What a short job of the same kind measures here."""
    console.print("3  A short warm-up job measures this machine's speed, watts and the cost of a start", soft_wrap=True)
    warm_up = _write_spec(out / "warm-up.yaml", "warm-up", WARM_UP_STEPS, "now", "1h")
    _drive(at, warm_up)
    with at.store.read() as session:
        learned = learn(session, likeness(read_spec(warm_up)))
    if (WORKERS, None) not in learned.points:
        raise JobFault("the warm-up measured no speed; `lowtide logs warm-up` says why")
    return learned


def _main_job(at: Desk, out: Path, hour_s: int, steps_per_s: float, console: Console) -> None:
    steps = max(2 * WARM_UP_STEPS, round(TRAIN_H * hour_s * steps_per_s))
    day = f"a grid whose day takes {hour_s * 24 / 60:g} minutes"
    console.print(f"4  The main job: {steps} steps, planned for the clean hours of {day}", soft_wrap=True)
    job_id = _drive(at, _write_spec(out / "demo.yaml", "demo", steps, "optimal", f"{FINISH_BY_H * hour_s}s"))
    console.print("5  The report")
    show_report(at, job_id)
    for path in write_report(at, job_id, out):
        console.print(f"   {path}", highlight=False, soft_wrap=True)
    with at.store.read() as session:
        pauses = len(segments_of(session, job_id)) - 1
    if pauses:
        console.print(f"   The plan paused and resumed the job {pauses} time{'s' if pauses > 1 else ''}.")
    else:
        console.print("   The plan chose no pause: on this machine a start costs more than the dirty hours would.")
    console.print(
        f"   Look further: lowtide --site {out / 'lowtide.yaml'} logs {job_id}", highlight=False, soft_wrap=True
    )


def _drive(at: Desk, spec_file: Path) -> str:
    job_id = admit_and_store(at, spec_file).id
    state = drive_job(at, job_id)
    if state != "done":
        raise JobFault(f"{job_id} is {state}; `lowtide logs {job_id}` says why")
    return job_id


def write_grid(path: Path) -> Path:
    """A week of generated intensities, clean around noon (sun) and after midnight (wind), as a CSV of hours."""
    first = datetime(2026, 3, 1, tzinfo=timezone.utc)
    lines = ["start_utc,g_per_kwh"]
    for hour in range(7 * 24):
        lines.append(f"{iso(first + timedelta(hours=hour))},{_intensity_g_per_kwh(hour % 24 + 0.5):.1f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _intensity_g_per_kwh(hour: float) -> float:
    def around(centre: float, width: float) -> float:
        distance = min(abs(hour - centre), 24 - abs(hour - centre))
        return math.exp(-((distance / width) ** 6))

    return 430 - 395 * around(12.25, 3.1) - 398 * around(0.75, 3.1) + 90 * around(18.5, 1.8)


def _write_site(path: Path, url: str, hour_s: int) -> Path:
    site = {
        "state": "./state",
        "ray": "local",
        "slot": f"{hour_s}s",
        "renew_within": "60s",
        "zones": {ZONE: {"provider": "electricity_maps", "pue": 1.2}},
        "providers": {"electricity_maps": {"base_url": url, "timeout": "5s"}},
    }
    return _write_yaml(path, site, "The demo's site: one zone, whose grid is generated and replayed on loopback.")


def _write_spec(path: Path, name: str, steps: int, policy: str, finish_by: str) -> Path:
    library = Path(sysconfig.get_paths()["stdlib"])
    spec = {
        "name": name,
        "job": "train",
        "model": {
            "config": {
                "model_type": "llama",
                "hidden_size": 128,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 384,
            }
        },
        "data": {
            "files": [str(library / "*.py"), str(library / "json" / "*.py"), str(library / "email" / "*.py")],
            "tokenizer": "bytes",
            "sequence_length": 128,
            "holdout": 0.02,
        },
        "training": {"steps": steps, "batch_size": 16, "micro_batch_size": 8, "learning_rate": 1.0e-3, "seed": 0},
        "deepspeed": {"zero_optimization": {"stage": 2}},
        "workers": {"count": WORKERS, "gpus": 0, "cpus": 1},
        "carbon": {"policy": policy, "finish_by": finish_by},
        "checkpoint": {"every": "60s"},
    }
    return _write_yaml(path, spec, "The sources of Python's standard library: real text that every machine has.")


def _write_yaml(path: Path, document: dict[str, Any], remark: str) -> Path:
    path.write_text(f"# {remark}\n{yaml.safe_dump(document, sort_keys=False)}", encoding="utf-8")
    return path
