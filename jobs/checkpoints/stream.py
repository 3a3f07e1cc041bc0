"""One file on its way to the disk: written, checksummed and flushed at once, each byte touched in memory once.
In: bytes in order. Out: the file, safely on disk, with its size and checksum.
`saving` has torch write a rank's part of a checkpoint into such files.

The checksum is of what was in memory, not of what a file system gives back. The disk is busy from the first chunk on,
where a plain writer leaves all of it to the flush at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from jobs.checkpoints.sealing import Sealed, checksum, flush_s
from jobs.patience import Beat

_CHUNK_BYTES = 8 << 20
"""Checksummed, written and given to the disk at a time."""
_SMALL_BYTES = 1 << 18
"""Less than this is gathered first: the headers of a file of many tensors are a few bytes each."""


class Stream:
    """A file to write once, from its begin to its end. OSError where the disk does not take it."""

    def __init__(self, path: Path, beat: Beat, allow: Callable[[float], None]) -> None:
        """`beat` is told that it gets on, and may raise; `allow` that it will be silent for so many seconds."""
        self._beat, self._allow = beat, allow
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._checksum = checksum()
        self._gathered = bytearray()
        self._size_bytes = 0
        self.fault: BaseException | None = None
        """The first that writing raised, whatever the one who wrote made of it."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def write(self, data: bytes | memoryview) -> int:
        """Take these bytes; their memory is the caller's again when this returns."""
        try:
            if len(data) < _SMALL_BYTES:
                self._gathered += data
                if len(self._gathered) >= _SMALL_BYTES:
                    self._drain()
            else:
                self._drain()
                self._put(memoryview(data).cast("B"))
        except BaseException as fault:
            self.fault = self.fault or fault
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing: `seal` flushes."""

    def seal(self) -> Sealed:
        """Flush all that was written to the disk; its size and checksum."""
        self._drain()
        self._beat()
        self._allow(flush_s(self._size_bytes))
        os.fsync(self._file)
        return Sealed(self._size_bytes, self._checksum.hexdigest())

    def _drain(self) -> None:
        gathered, self._gathered = self._gathered, bytearray()
        if gathered:
            self._put(memoryview(gathered))

    def _put(self, data: memoryview) -> None:
        for start in range(0, len(data), _CHUNK_BYTES):
            self._beat()
            chunk = data[start : start + _CHUNK_BYTES]
            self._checksum.update(chunk)
            self._write_out(chunk)

    def _write_out(self, chunk: memoryview) -> None:
        size_bytes, start = len(chunk), self._size_bytes
        while chunk:
            chunk = chunk[os.write(self._file, chunk) :]
        self._size_bytes += size_bytes
        if hasattr(os, "posix_fadvise"):  # Linux begins to write what is dirty, waits for nothing and drops none of it
            os.posix_fadvise(self._file, start, size_bytes, os.POSIX_FADV_DONTNEED)
