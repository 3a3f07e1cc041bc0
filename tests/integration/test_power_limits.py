"""Segments under a power limit, on a real Ray whose GPUs are the NVML stand-in's: limited, killed, refused.
In: segments that wish for 200 W of GPUs that take 100 to 700. Out: limits given back, and what each segment says.
The stand-in's GPUs draw what curves.py says, under the limit that was set; training itself is on CPUs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from cluster.api import Cluster, Desire, MeterRow, SegmentOrder, SegmentView, connect, start_local, stop_local
from jobs.spec import JobSpec
from tests.integration.conftest import processes_of
from tests.nvml import build
from tests.nvml.curves import exact_j

pytestmark = pytest.mark.timeout(1800)  # its fixtures take minutes where others use the machine, too

LIMIT_W, DEFAULT_W = 200, 700.0
SHAPES = ("square", "sawtooth")
WITHIN_S = 240.0
Value = TypeVar("Value")
TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}


@dataclass
class Site:
    """An embedded Ray with two stand-in GPUs, the folder that controls them, and a spool."""

    folder: Path
    cluster: Cluster

    def order(self, segment_id: str, steps: int) -> SegmentOrder:
        text = self.folder / "corpus.txt"
        text.write_text("the tide goes out and the tide comes in\n" * 400)
        spec = JobSpec.model_validate(
            {
                "name": "capped",
                "job": "train",
                "model": {"config": TINY},
                "data": {"files": [str(text)], "sequence_length": 32},
                "training": {"steps": steps, "batch_size": 4, "micro_batch_size": 2},
                "deepspeed": {"zero_optimization": {"stage": 1}},
                "workers": {"count": 1, "gpus": 1, "cpus": 1, "power_limit": [LIMIT_W]},
                "checkpoint": {"every": "1h"},
                "env": {"DS_ACCELERATOR": "cpu"},
            }
        )
        return SegmentOrder(
            segment_id=segment_id,
            job_id="capped",
            reason="start",
            zone="DE",
            workers=1,
            spec=spec,
            desire=Desire(datetime.now(timezone.utc) + timedelta(minutes=20), "expired", 1),
            slot_s=10.0,  # rows are cut at its edges: what is waited for here comes soon
            checkpoints=str(self.folder / segment_id),
            restore_from=None,
            spool=str(self.folder / "spool"),
            threads=1,
            power_limit_w=LIMIT_W,
        )

    def limits_w(self) -> list[list[float]]:
        """What each GPU's limit was set to, one after the other."""
        files = [self.folder / "control" / f"limit-{index}" for index in range(len(SHAPES))]
        lines = [file.read_text().splitlines() if file.exists() else [] for file in files]
        return [[float(line.split()[1]) for line in own] for own in lines]

    def kept(self) -> list[Path]:
        """Files in the spool that say what limits were found."""
        return list((self.folder / "spool").glob("*.limits.json"))

    def train_rows(self) -> list[MeterRow]:
        """Rows of the training on a GPU."""
        return [row for row in self.cluster.collect(str(self.folder / "spool")) if row.uuid and row.phase == "train"]

    def watch(self, segment_id: str, until: Callable[[SegmentView], bool]) -> SegmentView:
        """The first view of the segment for which `until` holds."""
        until_s = time.monotonic() + WITHIN_S
        while not until(view := self.cluster.observe([segment_id])[segment_id]):
            if view.status in ("ended", "lost") or time.monotonic() > until_s:
                raise AssertionError(f"{view}\n{''.join(self.cluster.logs(segment_id))}")
            time.sleep(0.3)
        return view

    def kill(self, name: str) -> int:
        """`kill -9` of this Ray's process whose actor class has that name; its pid."""
        named = [each for each in processes_of(self.folder / "state") if name in " ".join(each.cmdline())]
        assert len(named) == 1, [each.cmdline() for each in processes_of(self.folder / "state")]
        os.kill(named[0].pid, signal.SIGKILL)
        return int(named[0].pid)


def wait(seen: Callable[[], Value | None], otherwise: str) -> Value:
    """The first value that is there."""
    until_s = time.monotonic() + WITHIN_S
    while not (value := seen()):
        assert time.monotonic() < until_s, otherwise
        time.sleep(0.2)
    return value


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if build.compiler() is None:
        pytest.skip("no C compiler for the NVML stand-in")
    folder = tmp_path_factory.mktemp("site")
    (folder / "control").mkdir()
    library = build.build(tmp_path_factory.mktemp("nvml"))
    settings = build.environment(
        library, devices=str(len(SHAPES)), shapes=",".join(SHAPES), control=str(folder / "control")
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        address = start_local(str(folder / "state"), "DE", 3)
    yield Site(folder, connect(address))
    assert stop_local(str(folder / "state"))


def test_a_limit_outlives_its_meter_and_ends_with_its_worker(site: Site) -> None:
    site.cluster.start(site.order("capped-1", 1_000_000))
    view = site.watch("capped-1", lambda view: view.progress is not None and view.progress.power_limit_w is not None)
    assert view.progress is not None
    assert (view.progress.power_limit_w, view.progress.power_limit_refused) == (LIMIT_W, None)
    (index,) = (index for index, set_w in enumerate(site.limits_w()) if set_w)
    assert site.limits_w()[index] == [LIMIT_W] and len(site.kept()) == 1

    killed = site.kill("ray::MeterActor")
    wait(lambda: not psutil.pid_exists(killed), "the meter lives on")
    at = datetime.now(timezone.utc)
    wait(lambda: [row for row in site.train_rows() if row.start > at], "no meter came again")
    assert set(site.limits_w()[index]) == {LIMIT_W}, "the worker lives, so its limit stands"

    site.kill("TrainWorker")
    wait(lambda: not site.kept(), "nobody gave the limit back")
    assert site.limits_w()[index][-1] == DEFAULT_W
    ended = site.watch("capped-1", lambda view: view.status == "ended")
    assert ended.result is not None and ended.result.ended == "lost"
    assert ended.progress is not None and ended.progress.power_limit_w == LIMIT_W

    rows = [row for row in site.train_rows() if row.segment_id == "capped-1"]
    told_j = sum(row.energy_j or 0.0 for row in rows)
    limited_j, free_j = exact_j(SHAPES[index], rows, LIMIT_W), exact_j(SHAPES[index], rows)
    # The last second is the killed worker's, and its limit is given back once it has been seen to be gone.
    assert limited_j * 0.99 < told_j < limited_j * 1.01 + (400 - LIMIT_W) * 1.0
    assert told_j < 0.95 * free_j


def test_a_segment_tells_the_limit_that_it_had_and_one_that_may_not_be_limited_runs_without_and_says_why(
    site: Site,
) -> None:
    before = site.limits_w()
    (site.folder / "control" / "fixed-1").touch()
    for name in ("one-1", "two-1"):  # a GPU each, whichever
        site.cluster.start(site.order(name, 6))
    results = {name: site.watch(name, lambda view: view.status == "ended").result for name in ("one-1", "two-1")}
    told = {name: (each.ended, each.power_limit_w, each.power_limit_refused) for name, each in results.items() if each}
    (free,) = (name for name, each in told.items() if each[2] is not None)
    (limited,) = told.keys() - {free}
    assert told[limited] == ("done", LIMIT_W, None)
    assert told[free][:2] == ("done", None) and "Insufficient Permissions" in str(told[free][2])
    assert "refused" in "".join(site.cluster.logs(free))
    assert site.limits_w() == [[*before[0], LIMIT_W, DEFAULT_W], before[1]]
    assert not site.kept()
