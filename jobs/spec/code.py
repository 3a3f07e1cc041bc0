"""A user's working folder as one file: copied as it is at submission, so that what waits or resumes runs that code.
In: a folder. Out: an archive named by its content, without what .gitignore files name; the same files elsewhere.
The submission packs; `cluster.ray_cluster` puts the archive beside the checkpoints; each worker's host unpacks it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pathspec import GitIgnoreSpec

from jobs.patience import Pulse, bounded, reading, told_as
from jobs.spec.errors import InputError

LIMIT_BYTES = 512 * 1024 * 1024
"""As much as Ray uploads of a working directory."""
_NEVER = GitIgnoreSpec.from_lines([".git/", ".hg/", "__pycache__/", ".venv/", ".ipynb_checkpoints/"])


def pack(folder: Path, into: Path) -> Path:
    """Write the folder's files to `into/<digest>.tar.gz`; one that is there already has the same content.

    InputError where there is no such folder, or more than LIMIT_BYTES in it.
    """
    if not folder.is_dir():
        raise InputError(f"working_dir: {folder} is no folder; mend the path")
    files = sorted(_files(folder, []))
    size_bytes = sum(path.stat().st_size for path in files if not path.is_symlink())
    if size_bytes > LIMIT_BYTES:
        raise InputError(
            f"working_dir: {folder} holds {size_bytes / 1e6:.0f} MB in {len(files)} files, and {LIMIT_BYTES / 1e6:.0f} "
            "MB are taken; name what may stay out in its .gitignore, or use script.folder in place of working_dir"
        )
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=into, suffix=".partial") as partial:
        with (
            gzip.GzipFile("", "wb", compresslevel=1, fileobj=partial, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|") as archive,
        ):
            for path in files:
                archive.add(path, str(path.relative_to(folder)), recursive=False, filter=_plain)
        partial.flush()
        partial.seek(0)
        target = into / f"{hashlib.sha256(partial.read()).hexdigest()[:24]}.tar.gz"
        place(Path(partial.name), target)
    return target


def place(source: Path, target: Path) -> None:
    """Copy a file to `target` so that a reader sees all of it or none; nothing where it is there."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.NamedTemporaryFile(dir=target.parent, suffix=".partial", delete=False) as fresh,
        source.open("rb") as of,
    ):
        shutil.copyfileobj(of, fresh)
        fresh.flush()
        os.fsync(fresh.fileno())
    Path(fresh.name).replace(target)


def unpack(archive: Path, target: Path) -> None:
    """Put the files of an archive into the folder `target`; nothing where it is there, as another rank put it.

    Unavailable where a disk is full, gone or silent.
    """

    def act(pulse: Pulse) -> None:
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix="unpacked-"))
        try:
            with reading(archive, pulse.beat) as packed, tarfile.open(fileobj=packed, mode="r:gz") as files:
                files.extractall(fresh, filter="data")
            with suppress(OSError):  # another rank was faster
                fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    where = f"working_dir: its copy {archive}, to be unpacked to {target.parent},"
    with told_as(where):
        bounded(where, act)


def _files(folder: Path, ignored: list[tuple[Path, GitIgnoreSpec]]) -> Iterator[Path]:
    """Files and links below a folder that no .gitignore on the way names."""
    listed = folder / ".gitignore"
    if listed.is_file():
        spec = GitIgnoreSpec.from_lines(listed.read_text(encoding="utf-8", errors="replace").splitlines())
        ignored = [*ignored, (folder, spec)]
    for path in folder.iterdir():
        is_folder = path.is_dir() and not path.is_symlink()
        slash = "/" if is_folder else ""
        if _NEVER.match_file(path.name + slash):
            continue
        if any(spec.match_file(str(path.relative_to(base)) + slash) for base, spec in ignored):
            continue
        if is_folder:
            yield from _files(path, ignored)
        elif path.is_file() or path.is_symlink():
            yield path


def _plain(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """The file without its times and owner, so that equal content makes equal archives."""
    file.uid = file.gid = file.mtime = 0
    file.uname = file.gname = ""
    return file
