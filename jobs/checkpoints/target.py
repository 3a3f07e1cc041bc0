"""A folder or URL where checkpoints lie, of any kind that fsspec knows: the one door to other file systems.
In: a path, or a URL such as s3://bucket/folder. Out: bytes read, written and removed below it.
`mirror` writes there, `bring` reads. Keys are the environment's: what s3fs, gcsfs and the like look for there.

What a file system raises becomes Unavailable, after three tries; what hangs, too. Only a missing file is told apart.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from jobs.patience import GivenUp, Pulse, bounded
from jobs.spec import InputError, LowtideError, Unavailable

CHUNK_BYTES = 1 << 20
WAITS_S = (1.0, 4.0)
"""Before the second and the third try."""
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"}
"""They have no folders to make; asked for one, some would make a bucket."""
_BLOCK_BYTES = 16 << 20

Value = TypeVar("Value")


class Target:
    """One place; names are paths below it, with `/`."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self.is_folder = "://" not in place
        try:
            self._files, self._root = _open(self.place)
        except (ImportError, ValueError) as fault:
            raise InputError(
                f"checkpoints: {place}: {fault}; s3:// needs `pip install 'lowtide[s3]'`, other kinds their own package"
            ) from fault
        self._has_folders = not _OBJECT_STORES & set(_protocols(self._files))

    def read(self, name: str) -> bytes | None:
        """The whole of a small file; None where there is none."""

        def act() -> bytes | None:
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self.patiently(f"reading {name}", lambda _pulse: act())

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file: a reader sees the old content or the new."""

        def act() -> None:
            self._make_parent(name)
            if self._has_folders:
                fresh = f"{self._path(name)}.fresh"
                self._files.pipe_file(fresh, content)
                self._files.mv(fresh, self._path(name))
            else:
                self._files.pipe_file(self._path(name), content)

        self.patiently(f"writing {name}", lambda _pulse: act())

    def chunks(self, name: str, pulse: Pulse) -> Iterator[bytes]:
        """A file's content in pieces; FileNotFoundError where there is none, Unavailable where it cannot be read."""
        with self.door(f"reading {name}"):
            file = self._files.open(self._path(name), "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        with file:
            while True:
                with self.door(f"reading {name}"):
                    chunk = file.read(CHUNK_BYTES)
                pulse.beat()
                if not chunk:
                    return
                yield chunk

    def send(self, name: str, chunks: Iterable[bytes], pulse: Pulse) -> int:
        """Write a file as its chunks come; returns the bytes sent. A fault on the way leaves no whole file there."""
        sent = 0
        with self.door(f"writing {name}"):
            self._make_parent(name)
            # An object counts once it is committed; a folder's file is there at once, and the manifest alone says so.
            kept = {} if self._has_folders else {"autocommit": False}
            file = self._files.open(self._path(name), "wb", block_size=_BLOCK_BYTES, **kept)
        try:
            for chunk in chunks:
                with self.door(f"writing {name}"):
                    file.write(chunk)
                sent += len(chunk)
                pulse.beat()
            with self.door(f"writing {name}"):
                file.close()
                if kept:
                    file.commit()
        except BaseException:
            with suppress(Exception):  # what is left there counts for nothing; the fault itself goes on
                file.discard() if kept else file.close()
            if kept:
                file.closed = True  # else it would upload what it still holds whenever it is collected
            raise
        return sent

    def folders(self) -> list[str]:
        """Names of the folders right below; empty where the place is not there yet."""
        return sorted(name for name, kind in self._listed().items() if kind == "directory")

    def files(self) -> list[str]:
        """Names of the files right below; empty where the place is not there yet."""
        return sorted(name for name, kind in self._listed().items() if kind == "file")

    def _listed(self) -> dict[str, str]:
        def act() -> dict[str, str]:
            try:
                found = self._files.ls(self._root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return {each["name"].rstrip("/").rpartition("/")[2]: each["type"] for each in found}

        return self.patiently("listing it", lambda _pulse: act())

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, where it is there."""

        def act() -> None:
            with suppress(FileNotFoundError):
                self._files.rm(self._path(name), recursive=True)

        self.patiently(f"removing {name}", lambda _pulse: act())

    def patiently(self, doing: str, act: Callable[[Pulse], Value]) -> Value:
        """What `act` returns, within bounds and after three tries at most."""
        return bounded(self.place, lambda pulse: self.tried(doing, act, pulse))

    def tried(self, doing: str, act: Callable[[Pulse], Value], pulse: Pulse) -> Value:
        """What `act` returns, after three tries at most; the last fault is Unavailable."""
        for wait_s in WAITS_S:
            try:
                with self.door(doing):
                    return act(pulse)
            except Unavailable:
                pulse.beat(wait_s)
                time.sleep(wait_s)
        with self.door(doing):
            return act(pulse)

    @contextmanager
    def door(self, doing: str) -> Iterator[None]:
        """Where what a file system raises becomes Unavailable."""
        try:
            yield
        except (LowtideError, GivenUp, FileNotFoundError):
            raise
        except Exception as fault:  # every file system has errors of its own, and some have no common base
            line = (str(fault).strip().splitlines() or [type(fault).__name__])[0][:300]
            raise Unavailable(f"{self.place} does not answer ({doing}: {line})") from fault

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_parent(self, name: str) -> None:
        if self._has_folders:
            self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)


def reach(place: str) -> str:
    """Write, read and remove a note at a place for checkpoints; how long that took, in words.

    Unavailable where the place does not answer or keeps something else, InputError where nothing knows its kind.
    """
    target, note = Target(place), f"lowtide-{uuid.uuid4().hex[:12]}"
    started_s = time.monotonic()
    target.write(note, note.encode())
    found = target.read(note)
    target.remove(note)
    if found != note.encode():
        raise Unavailable(f"{place} does not give back what was written to it")
    return f"{place} can be written, read and cleared ({time.monotonic() - started_s:.1f} s)"


def _open(place: str) -> tuple[Any, str]:
    import fsspec

    url = place if "://" in place else f"file://{Path(place).absolute()}"
    # An instance of its own, and no remembered listings: another host writes there, too.
    files, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    return files, str(root).rstrip("/")


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
