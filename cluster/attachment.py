"""A process's line into Ray: a child process that attaches, so that Ray's end is never this one's.
In: named requests with plain values. Out: plain values, or Unavailable with one line.
RayCluster asks through it whatever needs the GCS or an actor; the rest goes by HTTP.

Ray ends any process that is attached, from C++ and without asking, a minute after its GCS is gone. A controller has
to outlive that: jobs wait for the next Ray, and users read why. The child also keeps Ray's handlers for signals, its
output and the working directory's modules out of the controller.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

from cluster.api import MeterRow, Node
from cluster.labels import GPU_KIND, ZONE
from jobs.spec.errors import LowtideError, StaleEpoch, Unavailable

ANSWER_TIMEOUT_S = 30.0
START_TIMEOUT_S = 60.0


@dataclass
class Child:
    """The process that is attached, the line to it, and what it wrote."""

    process: subprocess.Popen[bytes]
    line: Connection
    output: IO[bytes]

    def end(self) -> None:
        """Kill it: it holds nothing, for actors keep their state and Ray notices a driver's end."""
        self.line.close()
        self.process.kill()
        self.process.wait()
        self.output.close()

    def last_words(self) -> str:
        """The last line that it wrote."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


class Gone(Exception):
    """The Ray that the child was attached to is another one by now."""


class Attachment:
    """The parent's side. The child starts with the first request and ends with this object, or with Ray."""

    def __init__(self, address: str) -> None:
        self.address: str = address
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._end: Callable[[], object] = lambda: None

    def ask(self, request: str, *arguments: Any) -> Any:
        """What the child answers; Unavailable where Ray, or the child, does not."""
        with self._lock:
            self._see_gcs()
            kind, content = self._exchange(request, arguments)
            if kind == "gone":
                self._close()
                kind, content = self._exchange(request, arguments)
        if kind == "fault":
            raise content
        return content

    def _exchange(self, request: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
        """The kind of the answer (value, fault or gone) and what it holds."""
        child = self._child or self._open()
        try:
            child.line.send((request, arguments))
            if not child.line.poll(START_TIMEOUT_S + ANSWER_TIMEOUT_S):
                raise TimeoutError(f"no answer within {START_TIMEOUT_S + ANSWER_TIMEOUT_S:.0f} s")
            kind, content = child.line.recv()
        except (EOFError, OSError) as fault:
            last = child.last_words()
            self._close()
            raise Unavailable(f"Ray at {self.address} does not answer ({request}: {last or fault})") from None
        return kind, content

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._close()

    def _see_gcs(self) -> None:
        """Say at once that there is no Ray, where asking it would take a minute to find out."""
        host, _, port = self.address.rpartition(":")
        if not port.isdigit():
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as fault:
            self._close()
            raise Unavailable(f"Ray at {self.address} does not answer ({fault}); is it running?") from None

    def _open(self) -> Child:
        ours, theirs = socket.socketpair()
        output = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the child)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "cluster.attachment", self.address, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the parent's
            )
        self._child = Child(process, Connection(ours.detach()), output)
        self._end = weakref.finalize(self, self._child.end)
        return self._child

    def _close(self) -> None:
        self._end()
        self._child = None


class Attached:
    """The child's side: each public method is a request."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._gcs: Any = None
        self._cluster_id: Any = None
        self._control: Any = None

    def look(self) -> None:
        """Raise Gone where another Ray answers at the address: the one before would be waited for, for a minute."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        if self._gcs is None:
            self.where()
        now = GcsClient(address=self._address).cluster_id
        self._cluster_id = self._cluster_id or now
        if now != self._cluster_id:
            raise Gone

    def where(self) -> tuple[str, str]:
        """The GCS address, `auto` resolved, and the dashboard's URL."""
        from ray._private import ray_constants, services
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        if self._address == "auto":
            self._address = services.canonicalize_bootstrap_address_or_die("auto")
        self._gcs = GcsClient(address=self._address)
        dashboard = self._gcs.internal_kv_get(
            ray_constants.DASHBOARD_ADDRESS.encode(),
            namespace=ray_constants.KV_NAMESPACE_DASHBOARD,
            timeout=ANSWER_TIMEOUT_S,
        )
        if dashboard is None:
            raise Unavailable(f"Ray at {self._address} runs without its dashboard; start it with one")
        return self._address, f"http://{dashboard.decode()}"

    def nodes(self) -> list[Node]:
        """The nodes that are alive now and not about to go: Ray puts nothing on one that it drains."""
        from ray.core.generated.autoscaler_pb2 import DEAD, DRAINING

        return [_node(state) for state in self._states() if state.status not in (DEAD, DRAINING)]

    def control(self, method: str, *arguments: Any) -> Any:
        """Call the control actor; once more where the one that was known is gone."""
        import ray
        from ray.exceptions import RayActorError

        from cluster.control import control_actor

        self._attach()
        for last in (False, True):
            try:
                self._control = self._control or control_actor()
                return ray.get(getattr(self._control, method).remote(*arguments), timeout=ANSWER_TIMEOUT_S)
            except RayActorError:
                self._control = None
                if last:
                    raise

    def collect(self, spool: str) -> list[MeterRow]:
        """See cluster.meter.actor.collect."""
        from cluster.meter.actor import collect

        self._attach()
        return collect(spool)

    def acknowledge(self, spool: str, rows: Sequence[MeterRow]) -> None:
        """See cluster.meter.actor.acknowledge."""
        from cluster.meter.actor import acknowledge

        self._attach()
        acknowledge(spool, rows)

    def _states(self) -> Any:
        from ray.autoscaler.v2.sdk import get_cluster_resource_state

        if self._gcs is None:
            self.where()
        return get_cluster_resource_state(self._gcs).node_states

    def _attach(self) -> None:
        import ray
        from ray._private import ray_constants
        from ray.job_config import JobConfig

        if ray.is_initialized():
            return
        # An embedded Ray lives on 127.0.0.1, which Ray would replace by the host's outer address.
        embedded = any(state.node_ip_address == "127.0.0.1" for state in self._states())
        ray_constants.ENABLE_RAY_CLUSTER = not embedded
        ray.init(
            address=self._address,
            namespace="lowtide",
            log_to_driver=False,
            logging_level="error",
            job_config=JobConfig(_client_job=True),  # keeps the working directory off the actors' module path
        )


def _node(state: Any) -> Node:
    total, free, labels = dict(state.total_resources), dict(state.available_resources), dict(state.labels)
    return Node(
        node_id=labels.get("ray.io/node-id", state.node_id.hex()),
        name=state.node_ip_address,
        zone=labels.get(ZONE),
        gpus=total.get("GPU", 0.0),
        cpus=total.get("CPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
        free_cpus=free.get("CPU", 0.0),
        gpu_kind=labels.get(GPU_KIND),
    )


@contextmanager
def _door(address: str, request: str) -> Iterator[None]:
    """Where what Ray and gRPC raise becomes Unavailable."""
    from ray.exceptions import RayError

    try:
        yield
    except (StaleEpoch, Unavailable) as fault:
        cause = getattr(fault, "cause", None)  # Ray wraps what an actor raised
        raise (cause if isinstance(cause, Unavailable) else fault) from None
    except (RayError, RuntimeError, ValueError, OSError, TimeoutError) as fault:
        line = (str(fault).strip().splitlines() or [""])[-1][:300]
        raise Unavailable(f"Ray at {address} does not answer ({request}: {type(fault).__name__}: {line})") from None


def main(address: str, fileno: int) -> None:
    """Answer requests until the parent hangs up."""
    attached = Attached(address)
    with Connection(fileno) as line:
        while True:
            try:
                request, arguments = line.recv()
            except EOFError:
                return
            try:
                with _door(address, request):
                    attached.look()
                    answer = ("value", getattr(attached, request)(*arguments))
            except Gone:
                answer = ("gone", None)
            except LowtideError as fault:
                answer = ("fault", fault)
            line.send(answer)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # Ray's own farewell takes a second, and waits for a GCS that may be gone
