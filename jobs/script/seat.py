"""Where a script's process sits: its command, its folder, and the environment that torchrun would give it.
In: the spec, the Place of its rank, and what the host gives. Out: a command, a folder and variables.
jobs.script.run starts the process with them.

`CUDA_VISIBLE_DEVICES` names the GPUs of all ranks on the host in the order of LOCAL_RANK, as scripts for torchrun
expect: `cuda:LOCAL_RANK` is this rank's, and is the one that its meter charges. A rank with several GPUs sees
its own alone.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.place import Place
from jobs.spec import JobSpec
from jobs.spec.entrypoint import command as command_of

if TYPE_CHECKING:
    from jobs.group import Group

HOOK = Path(__file__).resolve().parents[1] / "hook"
"""The folder that holds lowtide.py and nothing else, so that no module of ours shadows one of the script's."""

_OURS_ALONE = ("LOWTIDE_", "PYTHON")
"""The worker's Python is kept off folders such as the script's (PYTHONSAFEPATH); the script's is not."""


@dataclass(frozen=True)
class Seat:
    """What the host and the cluster give a rank's script."""

    node: str
    """The host, by any name that differs between hosts."""
    folder: Path
    """Its working directory."""
    gpus: tuple[str, ...] = ()
    """The GPUs that are this rank's alone, as CUDA_VISIBLE_DEVICES names them."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the user's: the spec's `env`, and the secrets that it names."""


def command(spec: JobSpec) -> list[str]:
    """The script's command; a Python of no path is the one that runs the worker."""
    assert spec.script is not None
    return command_of(spec.script.entrypoint, sys.executable)


def environment(place: Place, seat: Seat, group: Group) -> dict[str, str]:
    """The variables of this rank's script; every rank calls."""
    everyone = group.each(lambda: (seat.node, place.local_rank, seat.gpus))
    ports = group.first(lambda: str(_free_port()))
    here = sorted((local_rank, gpus) for node, local_rank, gpus in everyone if node == seat.node)
    nodes = list(dict.fromkeys(node for node, _, _ in everyone))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS_ALONE)}
    path = [str(HOOK), *filter(None, [seat.env.get("PYTHONPATH")])]
    return {
        **inherited,
        "PYTHONUNBUFFERED": "1",
        **seat.env,
        **_visible(seat.gpus, [gpu for _, gpus in here for gpu in gpus], len(here)),
        "PYTHONPATH": os.pathsep.join(path),
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.local_rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_WORLD_SIZE": str(len(here)),
        "GROUP_RANK": str(nodes.index(seat.node)),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": ports,
        "LOWTIDE_OUTPUT": str(place.checkpoints / "final"),
    }


def _visible(mine: tuple[str, ...], of_the_host: list[str], ranks: int) -> dict[str, str]:
    if not mine:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(of_the_host if len(of_the_host) == ranks else mine)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
