"""Several zones and kinds of GPU in one cluster, by the command alone: jobs run where the grid and their specs say.
In: `lowtide serve` on six Ray nodes, GPUs of the NVML stand-in, a grid on loopback that the test turns. Out: nothing.
Training itself is on CPUs; a GPU's UUID in the ledger says which node a rank was on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator import grid
from orchestrator.replay import Replay, Trace
from tests.faults.nodes import Nodes, Shape
from tests.faults.reference import Reference
from tests.integration.command import LLAMA, Lowtide
from tests.integration.ranks import differing
from tests.nvml import build

pytestmark = pytest.mark.timeout(1800)  # its fixtures take minutes where others use the machine, too

DE, FR_NARROW, FR, OTHER_KIND, OTHER_KIND_NARROW = range(5)
SHAPES = (
    Shape("DE", (0, 1), "A100"),
    Shape("FR", (2,), "A100"),
    Shape("FR", (3, 4), "A100"),
    Shape("FR", (5, 6), "H100"),
    Shape("FR", (7,), "H100"),
)
SLOT_S = 5
CLEAN_G, DIRTY_G = 20.0, 900.0
TRANSFER_J_PER_BYTE = 1e-4
STEPS, TRIES = 1000, 4
"""Of the job that moves; twice as many where a machine takes them before the grid has turned."""
SCRIPT_STEPS = 1600
"""Likewise of the script, before it can be paused."""
SCRIPT = Path(__file__).parent / "scripts" / "trainer.py"


def steady(g_per_kwh: float) -> Replay:
    trace = Trace(900.0, (g_per_kwh, g_per_kwh), (g_per_kwh, g_per_kwh), "a grid made for a test")
    return Replay.begin(trace, datetime.now(timezone.utc), speed=900 / SLOT_S)


@dataclass
class Ground:
    """The site, its nodes, and the grid, which shows what the test puts there."""

    site: Lowtide
    nodes: Nodes
    replays: dict[str, Replay]

    def turn(self, de: float, fr: float) -> None:
        """From now on these are the zones' intensities, and forecasts say that they stay."""
        self.replays |= {"DE": steady(de), "FR": steady(fr)}

    def nodes_of(self, job_id: str, segment_id: str) -> dict[int | None, set[int]]:
        """By rank of a segment the nodes whose GPUs it was charged for."""
        of_gpu = {gpu: name for name, shape in enumerate(SHAPES) for gpu in shape.gpus}
        found: dict[int | None, set[int]] = {}
        for row in self.site.rows(job_id):
            if row.segment_id == segment_id and row.uuid is not None:
                found.setdefault(row.rank, set()).add(of_gpu[int(row.uuid.rpartition("-")[2])])
        return found

    def node_ids(self, segment_id: str) -> dict[int, str]:
        """By rank of a segment that runs the id of the Ray node that its process is of; -1 is its driver."""
        found: dict[int, str] = {}
        for path in (self.site.state / "spool").glob("*.jsonl"):
            with suppress(OSError, ValueError, IndexError):
                owners = json.loads(path.read_text().strip().splitlines()[-1])["state"]["owners"]
                for owner in (each["owner"] for each in owners if each["owner"]["segment_id"] == segment_id):
                    if (name := self.nodes.node_of(owner["pid"])) is not None:
                        found[owner["rank"]] = self.nodes.ids[name]
        return found


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A controller's ground: DE is clean."""
    if build.compiler() is None:
        pytest.skip("no C compiler for the NVML stand-in")
    folder = tmp_path_factory.mktemp("zones")
    gpus = sum(len(shape.gpus) for shape in SHAPES)
    nodes = Nodes(SHAPES, build.environment(build.build(folder), devices=str(gpus)), folder / "nodes.log")
    replays = {"DE": steady(CLEAN_G), "FR": steady(DIRTY_G)}
    zone = {"provider": "electricity_maps", "transfer_j_per_byte": TRANSFER_J_PER_BYTE}
    with grid.start(replays) as server:
        site = Lowtide(
            folder,
            None,
            ray=nodes.address,
            slot=f"{SLOT_S}s",
            zones={name: {**zone, "checkpoints": f"./{name}"} for name in ("DE", "FR")},
            providers={"electricity_maps": {"base_url": server.url, "timeout": "5s"}},
        )
        try:
            nodes.start()
            yield Ground(site, nodes, replays)
        finally:
            nodes.end()
            site.store.close()


@dataclass(frozen=True)
class Moved:
    """The job that the controller moved."""

    name: str
    node_ids: dict[int, str]
    """Of its last segment, while it trained."""
    undisturbed: Path
    """The checkpoints of bare ranks that trained the same."""


@pytest.fixture(scope="module")
def moved(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """Has a job moved from DE to FR by the controller when the grid turned."""
    site, reference = ground.site, None
    try:
        with site.serving():
            for attempt in range(TRIES):
                ground.turn(de=CLEAN_G, fr=DIRTY_G)
                name = f"mover-{attempt}"
                site.run("submit", mover(site, name, STEPS * 2**attempt))
                reference = Reference(tmp_path_factory.mktemp("undisturbed"), dict(site.job(name).spec), 2)
                if (node_ids := has_moved(ground, name)) is not None:
                    break
                reference.end()
            else:
                pytest.fail(f"the machine takes {STEPS * 2 ** (TRIES - 1)} steps before the grid has turned")
            site.until(lambda: site.job(name).state == "done", name)
        yield Moved(name, node_ids, reference.checkpoints())
    finally:
        if reference is not None:
            reference.end()


def mover(site: Lowtide, name: str, steps: int) -> Path:
    return site.spec(
        name,
        model={"config": {**LLAMA, "attention_dropout": 0.1}},
        training={"steps": steps, "batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2, "warmup_steps": 3},
        workers={"count": 2, "gpus": 1, "cpus": 1, "gpu_kind": "A100"},
        carbon={"policy": "optimal", "finish_by": "1h"},
        env={"DS_ACCELERATOR": "cpu"},
        checkpoint={"every": "1h"},
    )


def has_moved(ground: Ground, name: str) -> dict[int, str] | None:
    """Turn the grid as soon as the job trains; the node ids after its move, None where it was too fast for that."""
    site = ground.site

    def trains(zone: str) -> bool:
        segment = site.training(name)
        return segment is not None and segment.zone == zone

    site.until(lambda: trains("DE") or site.job(name).state == "done", name)
    ground.turn(de=DIRTY_G, fr=CLEAN_G)
    site.until(lambda: trains("FR") or site.job(name).state == "done", name)
    segment = site.training(name)
    return ground.node_ids(segment.id) if segment is not None and segment.zone == "FR" else None


@pytest.fixture(scope="module")
def trainer(ground: Ground) -> tuple[str, int]:
    """A script that names a kind of GPU, paused as soon as it trained, and resumed; and its steps."""
    site = ground.site
    with site.serving():
        for attempt in range(TRIES):
            name, steps = f"trainer-{attempt}", SCRIPT_STEPS * 2**attempt
            site.run("submit", script(site, name, steps))
            if paused(site, name):
                break
        site.run("resume", name)
        site.until(lambda: site.job(name).state == "done", name)
    return name, steps


def paused(site: Lowtide, name: str) -> bool:
    """Pause the job as soon as it trains; False where it was done before the wish reached it."""
    site.until(lambda: site.training(name) or site.job(name).state == "done", name)
    site.end(site.start("pause", name), code=None)  # refused where it is done by now
    site.until(lambda: site.job(name).state in ("paused", "done"), name)
    return site.job(name).state == "paused"


def script(site: Lowtide, name: str, steps: int) -> Path:
    document = {
        "name": name,
        "job": "script",
        "script": {"entrypoint": f"{SCRIPT} --steps {steps}"},
        "workers": {"count": 1, "gpus": 1, "gpu_kind": "H100"},
        "carbon": {"policy": "now", "zones": ["FR"]},
        "env": {"DS_ACCELERATOR": "cpu"},
    }
    path = site.folder / f"{name}.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_the_controller_moves_a_job_to_the_zone_that_turned_clean(ground: Ground, moved: Moved) -> None:
    first, last = ground.site.segments(moved.name)
    assert (first.zone, first.ended) == ("DE", "moved")
    assert (last.zone, last.reason, last.ended) == ("FR", "move", "done")
    assert last.start_step == first.step > 0
    assert ground.nodes_of(moved.name, first.id) == {0: {DE}, 1: {DE}}


def test_its_workers_go_to_one_node_of_their_kind(ground: Ground, moved: Moved) -> None:
    last = ground.site.segments(moved.name)[-1]
    assert ground.nodes_of(moved.name, last.id) == {0: {FR}, 1: {FR}}
    assert {moved.node_ids[rank] for rank in (0, 1)} == {ground.nodes.ids[FR]}


def test_the_move_is_charged(ground: Ground, moved: Moved) -> None:
    last = ground.site.segments(moved.name)[-1]
    report = ground.site.ask("report", moved.name)
    (move,) = report["moves"]
    assert (move["from"], move["to"]) == ("DE", "FR")
    assert move["moved_bytes"] == last.moved_bytes and last.moved_bytes is not None and last.moved_bytes > 0
    assert move["moved_j"] == pytest.approx(last.moved_bytes * TRANSFER_J_PER_BYTE)
    assert report["emissions_g"]["transfer"] > 0
    by_zone = {zone: sum(s["energy_j"] for s in report["segments"] if s["zone"] == zone) for zone in ("DE", "FR")}
    assert min(by_zone.values()) > 0 and sum(by_zone.values()) == pytest.approx(report["energy_j"])


def test_the_moved_job_ends_bit_for_bit_as_bare_ranks_do(ground: Ground, moved: Moved) -> None:
    assert differing(moved.undisturbed, ground.site.folder / "FR" / moved.name) == []


def test_a_trainer_of_transformers_is_paused_and_resumed_on_the_kind_that_it_names(
    ground: Ground, trainer: tuple[str, int]
) -> None:
    """Of the nodes of that kind each time on the one of which it leaves nothing, so that the other stays whole."""
    name, steps = trainer
    segments = ground.site.segments(name)
    assert [(segment.reason, segment.ended) for segment in segments] == [("start", "paused"), ("resume", "done")]
    # A script's segment begins, for the controller, with the step of its first answer.
    assert 0 < segments[0].step <= segments[1].start_step <= segments[0].step + 1
    assert segments[1].step == steps
    for segment in segments:
        assert ground.nodes_of(name, segment.id) == {0: {OTHER_KIND_NARROW}}
    losses: dict[str, Any] = json.loads((ground.site.folder / "FR" / name / "final" / "losses.json").read_text())
    assert sorted(map(int, losses)) == list(range(1, steps + 1))


def test_a_segment_that_no_node_holds_alone_lies_on_two(ground: Ground) -> None:
    site = ground.site
    spec = site.spec(
        "wide",
        training={"steps": 4, "batch_size": 6, "micro_batch_size": 1},
        workers={"count": 3, "gpus": 1, "cpus": 1, "gpu_kind": "H100"},
        carbon={"policy": "now", "zones": ["FR"]},
        env={"DS_ACCELERATOR": "cpu"},
    )
    with site.serving():
        site.run("submit", spec)
        site.until(lambda: site.job("wide").state == "done", "wide")
    (segment,) = site.segments("wide")
    lies = ground.nodes_of("wide", segment.id)
    assert sorted(lies) == [0, 1, 2] and {len(nodes) for nodes in lies.values()} == {1}
    assert set.union(*lies.values()) == {OTHER_KIND, OTHER_KIND_NARROW}
