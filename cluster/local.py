"""The embedded Ray: one node on loopback that outlives the command which started it.
In: a state folder, a zone and a number of CPUs. Out: a GCS address; `<state>/ray.json` says whose processes they are.
`cluster.api.connect` attaches to the address; `stop` ends exactly the processes that `start` began.

Every process of an embedded Ray inherits the variable LOWTIDE_RAY with a token of its own, so that orphans whose
parent was killed are still told apart from any other Ray on the host. `ray stop` is never used: it ends them all.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cluster.labels import ZONE
from jobs.spec import Unavailable

HOST = "127.0.0.1"
TOKEN_VARIABLE = "LOWTIDE_RAY"
# Without it Ray replaces 127.0.0.1 by the host's outer address on Linux and listens on every interface.
LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
OBJECT_STORE_BYTES = 256 * 1024 * 1024
_PORT_FLAGS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--object-manager-port",
    "--node-manager-port",
)
_PORT_VARIABLES = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")


@dataclass(frozen=True)
class Record:
    """What `<state>/ray.json` keeps of a running embedded Ray."""

    pid: int
    create_time: float
    """Of the process `pid`, in seconds since the host's boot, for clocks are set: a reused pid has another one."""
    token: str
    address: str
    dashboard_url: str
    zone: str
    temp_dir: str


def start(state: str, zone: str, cpus: int | None = None) -> str:
    """The GCS address of the state folder's Ray, started where none runs; Unavailable with the log's tail."""
    folder = Path(state).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        record = _read(folder)
        if record is not None and _answers(record):
            return record.address
        if record is not None:
            _end(record)
        # A free port may be taken between choosing and binding it: once more, with others.
        for attempt in (1, 2):
            try:
                record = _launch(folder, zone, cpus)
                break
            except Unavailable:
                if attempt == 2 or "in use" not in (folder / "ray.log").read_text(errors="replace"):
                    raise
        assert record is not None
        _write(folder, record)
        return record.address


def find(state: str) -> str | None:
    """The GCS address of the state folder's Ray where it runs; None where it does not, and none is started."""
    record = _read(Path(state).resolve())
    return record.address if record is not None and _answers(record) else None


def stop(state: str) -> bool:
    """End the state folder's Ray by its own process ids; False where none ran."""
    folder = Path(state).resolve()
    if not folder.is_dir():
        return False
    with _only_one(folder):
        record = _read(folder)
        if record is None:
            return False
        ended = _end(record)
        (folder / "ray.json").unlink(missing_ok=True)
        return ended > 0


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two commands never start two Rays for one state folder."""
    with (folder / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(folder: Path) -> Record | None:
    try:
        return Record(**json.loads((folder / "ray.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # none, or half-written by a command that was killed: the token still finds no more than its own


def _write(folder: Path, record: Record) -> None:
    part = folder / "ray.json.part"
    part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    part.replace(folder / "ray.json")


def _launch(folder: Path, zone: str, cpus: int | None) -> Record:
    """Start Ray's head in a session of its own and wait until jobs can be submitted."""
    ports = _free_ports(len(_PORT_FLAGS) + len(_PORT_VARIABLES))
    flag_ports, variable_ports = ports[: len(_PORT_FLAGS)], ports[len(_PORT_FLAGS) :]
    address, dashboard_url = f"{HOST}:{ports[0]}", f"http://{HOST}:{ports[1]}"
    temp_dir, token = _temp_dir(folder), uuid.uuid4().hex
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"]
    command += [f"{flag}={port}" for flag, port in zip(_PORT_FLAGS, flag_ports, strict=True)]
    command += [
        f"--node-ip-address={HOST}",
        f"--dashboard-host={HOST}",
        f"--labels={ZONE}={zone}",
        f"--temp-dir={temp_dir}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
        "--log-style=record",
    ]
    if cpus is not None:
        command.append(f"--num-cpus={cpus}")
    log = folder / "ray.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=temp_dir,
            env=_environment(token) | dict(zip(_PORT_VARIABLES, map(str, variable_ports), strict=True)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = Record(process.pid, _started_s(psutil.Process(process.pid)), token, address, dashboard_url, zone, temp_dir)
    # Written before Ray is up, so that a command killed now leaves nothing that `stop` cannot find.
    _write(folder, record)
    try:
        _wait(process, record, agent_port=flag_ports[_PORT_FLAGS.index("--dashboard-agent-listen-port")], log=log)
    except BaseException:
        _end(record)
        (folder / "ray.json").unlink(missing_ok=True)
        raise
    process.returncode = 0  # it outlives this handle on purpose, of which Python would warn
    return record


def _environment(token: str) -> dict[str, str]:
    """The environment of every process of the embedded Ray."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    environment |= {
        TOKEN_VARIABLE: token,
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),  # on loopback, one user's
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # its actors would hold a head that is told to end for 30 s
        LOOPBACK_VARIABLE: "0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONSAFEPATH": "1",  # a user's own jobs/ or cluster/ folder must not shadow this installation's
    }
    # Else Ray starts a worker for each core, and lets the first that attaches wait for them: 45 MB each, which no
    # segment can use, for its processes have variables of their own.
    environment.setdefault("RAY_prestart_worker_first_driver", "0")
    environment.pop("PYTHONPATH", None)
    if not glob.glob("/dev/nvidia[0-9]*"):
        environment.setdefault("DS_ACCELERATOR", "cpu")
    return environment


def _temp_dir(folder: Path) -> str:
    """Ray's own folder: apart from any other Ray's, whose `auto` address would be found there, and short.

    Ray's unix sockets lie in it and may have 107 bytes in all, so it is not below the state folder.
    """
    name = f"lowtide-{os.getuid()}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    base = tempfile.gettempdir()
    path = Path(base if len(base) <= 24 else "/tmp") / name
    shutil.rmtree(path, ignore_errors=True)  # logs of the one before stay until here
    path.mkdir(mode=0o700)
    return str(path)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody holds now, chosen together so that no two are the same."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(process: subprocess.Popen[bytes], record: Record, agent_port: int, log: Path) -> None:
    """Return once jobs can be submitted: the head answers, and the node's agent, which comes last, listens."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not (_submits(record) and _listens(agent_port)):
        if process.poll() is not None or time.monotonic() > deadline_s:
            tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise Unavailable(f"the embedded Ray did not start; the end of {log} says: {tail or 'nothing'}")
        time.sleep(0.2)


def _answers(record: Record) -> bool:
    return _process(record.pid, record.create_time) is not None and _submits(record)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _submits(record: Record) -> bool:
    """Whether the head's job API answers."""
    try:
        with urllib.request.urlopen(f"{record.dashboard_url}/api/jobs/", timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as fault:
        return fault.code in (401, 403)  # it is up, and asks for the user's token
    except (OSError, ValueError):
        return False


def _process(pid: int, create_time: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        same = abs(_started_s(process) - create_time) < 0.02
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _started_s(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())


def _own(record: Record) -> list[psutil.Process]:
    """Every live process of this Ray, head first: the head's descendants, and orphans that carry its token."""
    head = _process(record.pid, record.create_time)
    own = [head, *head.children(recursive=True)] if head is not None else []
    for process in psutil.process_iter():
        try:
            if process not in own and process.environ().get(TOKEN_VARIABLE) == record.token:
                own.append(process)
        except psutil.Error:
            continue  # another user's, or gone meanwhile
    return list(filter(_lives, own))


def _lives(process: psutil.Process) -> bool:
    """False for one that has ended, also where nobody has taken its exit code yet, as in a container without init."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(record: Record) -> int:
    """End every process of this Ray and see that it has ended; how many there were."""
    first = _own(record)
    for process in first[:1]:
        _signal(process, hard=False)  # Ray's head ends its children in order
    _, left = psutil.wait_procs(first, timeout=STOP_TIMEOUT_S / 2)
    for _ in range(3):  # a dying parent may have begun another child meanwhile
        rest = list({process.pid: process for process in [*filter(_lives, left), *_own(record)]}.values())
        if not rest:
            return len(first)
        for process in rest:
            _signal(process, hard=True)
        _, left = psutil.wait_procs(rest, timeout=STOP_TIMEOUT_S / 2)
    left = list(filter(_lives, left))
    if not left:
        return len(first)
    pids = ", ".join(str(process.pid) for process in left)
    raise Unavailable(f"processes {pids} of the embedded Ray do not end; look at them with ps")


def _signal(process: psutil.Process, hard: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill() if hard else process.terminate()
