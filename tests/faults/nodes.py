"""A Ray cluster of several nodes on this machine, whose every process can be found and killed.
In: what each node is, and a log. Out: nodes that come, drain and go; a head that is lost and comes back.
A child process holds the cluster (`ray.cluster_utils`), for Ray ends whatever is attached to a head that goes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import psutil

from cluster.labels import GPU_KIND
from cluster.labels import ZONE as ZONE_LABEL
from cluster.local import HOST, _free_ports, _listens, _lives

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "LOWTIDE_FAULTS"
"""Every process of the cluster inherits this variable, by which it is found."""
ZONE = "DE"
STORE_BYTES = 80 << 20
ANSWER_S = 180.0
_RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True)
class Shape:
    """One node: as many CPUs as GPUs."""

    zone: str
    gpus: tuple[int, ...]
    """The indices of its GPUs, of which no other node has any."""
    kind: str | None = None
    """What Ray is to call them; None is what it finds."""

    @property
    def labels(self) -> dict[str, str]:
        """As `ray start --labels` takes them."""
        return {ZONE_LABEL: self.zone} | ({GPU_KIND: self.kind} if self.kind is not None else {})


def alike(count: int) -> tuple[Shape, ...]:
    """Nodes of one GPU each, all in one zone."""
    return tuple(Shape(ZONE, (index,)) for index in range(count))


class Nodes:
    """The cluster: a head without CPUs or GPUs, and the nodes."""

    def __init__(self, shapes: Sequence[Shape], env: Mapping[str, str], log: Path) -> None:
        self.names, self._shapes = tuple(range(len(shapes))), shapes
        self._gcs_port, self._dashboard_port = _free_ports(2)
        self._token = uuid.uuid4().hex
        self._folder = Path(tempfile.mkdtemp(prefix="lf-", dir="/tmp"))  # Ray's sockets may have 107 bytes in all
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        self._env = {**env, **_RAY, TOKEN: self._token, "PATH": path, "PYTHONPATH": str(ROOT)}
        self._log = log
        self._child: subprocess.Popen[str] | None = None
        self.ids: dict[int, str] = {}

    @property
    def address(self) -> str:
        """The GCS address."""
        return f"{HOST}:{self._gcs_port}"

    def start(self) -> None:
        """Start the head and every node."""
        with self._log.open("a") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nodes", str(self._gcs_port), str(self._dashboard_port)],
                cwd=self._folder,
                env={**self._env, "LF_TEMP": str(self._folder / "ray")},
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._hear()
        for name in self.names:
            self.add(name)

    def add(self, name: int) -> None:
        """Bring a node into the cluster."""
        shape = self._shapes[name]
        self.ids[name] = self._ask("add", name, shape.gpus, shape.labels)

    def remove(self, name: int) -> None:
        """A node dies with everything on it."""
        for process in self._tree(self._ask("pids", name)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._ask("remove", name)
        del self.ids[name]

    def drain(self, name: int, within_s: int) -> None:
        """The notice of a preemption: this node goes in so many seconds."""
        command = ["drain-node", "--address", self.address, "--node-id", self.ids[name]]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "reclaimed"]
        command += ["--deadline-remaining-seconds", str(within_s)]
        code = "from ray.scripts.scripts import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *command], env=self._env, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"ray drain-node: {done.stdout}{done.stderr}")

    def node_of(self, pid: int) -> int | None:
        """The node that a process runs on."""
        for name in self.ids:
            if any(process.pid == pid for process in self._tree(self._ask("pids", name))):
                return name
        return None

    def lose(self) -> None:
        """The head and every node die at once, and all that Ray knew with them."""
        own = self.processes()
        for _ in range(5):
            for process in own:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(own, timeout=10)
            own = [process for process in self.processes() if _lives(process)]
            if not own:
                break
        if self._child is not None:
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        self._child = None
        self.ids.clear()

    def end(self) -> None:
        """End every process and remove Ray's files."""
        self.lose()
        shutil.rmtree(self._folder, ignore_errors=True)

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Every live process of the cluster, or those of one title."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(TOKEN) == self._token and " ".join(process.cmdline()).startswith(title):
                    found.append(process)
        return found

    def _tree(self, pids: list[int]) -> list[psutil.Process]:
        tree = []
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                tree += [process, *process.children(recursive=True)]
        return tree

    def _ask(self, *request: Any) -> Any:
        assert self._child is not None and self._child.stdin is not None
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        assert self._child is not None and self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise AssertionError(f"the cluster's process has ended; see {self._log}")
        return json.loads(line)


def _agent_port() -> dict[str, Any]:
    """A port of its own for a node's agent: of those that share one, as by default, the first alone takes jobs."""
    return {"dashboard_agent_listen_port": _free_ports(1)[0]}


def _await(agent_port: int) -> None:
    """Return once the head's agent listens, which takes the jobs."""
    deadline_s = time.monotonic() + ANSWER_S
    while not _listens(agent_port):
        if time.monotonic() > deadline_s:
            raise AssertionError("the head's agent does not listen")
        time.sleep(0.1)


def main(gcs_port: int, dashboard_port: int, asks: IO[str], answers: IO[str]) -> None:
    """The child: start the head, then do as each line asks."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # else Ray replaces 127.0.0.1 by the host's outer address
    from ray.cluster_utils import Cluster

    common: dict[str, Any] = {"object_store_memory": STORE_BYTES, "temp_dir": os.environ["LF_TEMP"]}
    head = {**common, "num_cpus": 0, "num_gpus": 0, "gcs_server_port": gcs_port, "include_dashboard": True}
    ports = {"dashboard_port": dashboard_port, "dashboard_host": HOST, **_agent_port()}
    cluster = Cluster(initialize_head=True, head_node_args={**head, **ports})
    _await(ports["dashboard_agent_listen_port"])
    nodes: dict[int, Any] = {}

    def answer(content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer("up")
    while line := asks.readline():
        request, name, *shape = json.loads(line)
        if request == "add":
            gpus, labels = shape
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
            has = {"num_cpus": len(gpus), "num_gpus": len(gpus), "labels": labels}
            nodes[name] = cluster.add_node(**common, **has, **_agent_port(), include_dashboard=False)
            del os.environ["CUDA_VISIBLE_DEVICES"]
            answer(nodes[name].node_id)
        elif request == "pids":
            answer([info.process.pid for infos in nodes[name].all_processes.values() for info in infos])
        elif request == "remove":
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
            answer("gone")
    os._exit(0)  # its parent kills what is left


if __name__ == "__main__":
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray writes to stdout
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    main(int(sys.argv[1]), int(sys.argv[2]), sys.stdin, cast("IO[str]", kept))
