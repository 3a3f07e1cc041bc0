"""What training needs of this machine, looked at one by one.
In: nothing. Out: findings, each there or missing with the way to mend it.
`lowtide doctor` and the demo show them before anything slow starts.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

from cluster.api import Finding
from cluster.installation import check as check_installation
from jobs.compiler import check as check_compiler

_PACKAGES = ("ray", "torch", "deepspeed", "transformers", "nvidia-ml-py")
_TMPDIR_AT_LEAST_BYTES = 2 * 1024**3
_CAP_SYS_ADMIN = 21
"""linux/capability.h"""
_LIMITS_NEED = (
    "this user may not set them, so jobs with power_limit run without: have root start the node's Ray, in a container "
    "with --cap-add SYS_ADMIN"
)


def diagnose() -> list[Finding]:
    """Every finding, in the order in which they would stop a job."""
    return [_compiler(), _installation(), *_packages(), _nvml(), _limits(), _rapl(), _scratch()]


def _compiler() -> Finding:
    missing = check_compiler()
    return Finding("C++ compiler", missing is None, missing or "found, and ninja beside it")


def _installation() -> Finding:
    try:
        check_installation()
    except ImportError as fault:
        return Finding("installation", False, str(fault))
    return Finding("installation", True, f"in {sys.prefix}")


def _packages() -> list[Finding]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(Finding(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, False, f"is not installed; pip install {name}"))
    return found


def _nvml() -> Finding:
    from cluster.meter.gpu import Unreadable
    from cluster.meter.nvml import described

    try:
        found = described()
    except Unreadable as fault:
        return Finding("NVML", True, f"a GPU does not answer ({fault}); its time is unmetered until it does")
    return Finding("NVML", True, "; ".join(found) or "no GPU answers")


def _limits() -> Finding:
    """Whether `workers.power_limit` can be had here. Nothing is set to find out: NVML asks for CAP_SYS_ADMIN."""
    from cluster.meter.gpu import Unreadable
    from cluster.meter.nvml import limits_described

    try:
        found = limits_described()
    except Unreadable as fault:
        return Finding("power limits", True, f"a GPU does not answer ({fault})")
    if not found:
        return Finding("power limits", True, "no GPU answers")
    may = "this user may set them" if _is_administrator() else _LIMITS_NEED
    return Finding("power limits", True, f"{'; '.join(found)}; {may}")


def _is_administrator(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has the capability that the driver asks for; root has, where the kernel does not say."""
    try:
        lines = status.read_text("ascii", "replace").splitlines()
    except OSError:
        lines = []
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), None)
    return os.geteuid() == 0 if effective is None else bool(effective >> _CAP_SYS_ADMIN & 1)


def _rapl() -> Finding:
    from cluster.meter.rapl import advice

    return Finding("RAPL", True, advice())


def _scratch() -> Finding:
    folder = os.environ.get("RAY_TMPDIR", "/tmp")
    free = os.statvfs(folder)
    free_bytes = free.f_bavail * free.f_frsize
    text = f"{free_bytes / 1024**3:.0f} GiB free in {folder}"
    if free_bytes < _TMPDIR_AT_LEAST_BYTES:
        return Finding("scratch space", False, f"{text}; Ray needs 2: free some, or set RAY_TMPDIR")
    return Finding("scratch space", True, text)
