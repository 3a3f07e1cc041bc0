"""The text of a job: documents, in an order that depends on nothing but the files' names.
In: the patterns of `data.files`. Out: files sorted within each pattern, and their documents one by one.
Next, jobs.tokens turns the documents into one array of tokens.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from jobs.patience import Beat, reading
from jobs.spec import InputError

_PIECE_BYTES = 1 << 20


def _still() -> None:
    """Nobody listens."""


def files_of(patterns: Sequence[str], beat: Beat = _still) -> list[Path]:
    """The files that match, sorted within each pattern and each once; InputError where a pattern matches none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = list[Path]()
        for match in glob.iglob(pattern, recursive=True):
            beat()
            if Path(match).is_file():
                files.append(Path(match))
        files.sort()
        if not files:
            raise InputError(f"data.files: {pattern!r} matches no file on this worker; mend the pattern or the mount")
        found.update(dict.fromkeys(files))
    return list(found)


def documents(path: Path, beat: Beat = _still) -> Iterator[str]:
    """The documents of one file: `.jsonl` by line (key `text`), `.parquet` by row (column `text`), else the whole file.

    `beat` is told of each piece that is read. InputError names the file, and the line where there is one.
    """
    kinds = {".jsonl": _json_lines, ".parquet": _parquet}
    with reading(path, beat) as file:
        yield from kinds.get(path.suffix, _plain)(path, file)


def _plain(path: Path, file: BinaryIO) -> Iterator[str]:
    content = bytearray()
    while piece := file.read(_PIECE_BYTES):
        content += piece
    try:
        yield content.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(f"data.files: {path}: is not UTF-8 at byte {fault.start}; convert it") from None


def _json_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as fault:
            raise InputError(f"data.files: {path}:{number}: is not JSON ({fault}); mend the line") from None
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise InputError(f'data.files: {path}:{number}: has no "text"; each line needs {{"text": "…"}}')
        yield text


def _parquet(path: Path, file: BinaryIO) -> Iterator[str]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.ParquetFile(file)
        if "text" not in table.schema_arrow.names:
            raise InputError(f'data.files: {path}: has no column "text"; rename the one that holds the text')
        row = 0
        for batch in table.iter_batches(columns=["text"]):
            for text in batch.column("text").to_pylist():
                if not isinstance(text, str):
                    raise InputError(f'data.files: {path}: row {row} has no "text"; drop such rows')
                yield text
                row += 1
    except pyarrow.ArrowException as fault:
        raise InputError(f"data.files: {path}: is not readable parquet ({fault}); mend or leave out the file") from None
