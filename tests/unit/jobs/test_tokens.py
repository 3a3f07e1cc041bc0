"""Text to tokens: bytes, files of every kind, errors that name file and line, a cache that notices changes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.patience import bounded
from jobs.spec import InputError, Unavailable
from jobs.text import documents, files_of
from jobs.tokens import Bytes, load, prepare


def test_bytes_are_the_tokens_and_one_more_ends_a_document() -> None:
    encoder = Bytes()
    assert encoder.encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert (encoder.vocab_size, encoder.end_id) == (257, 256)


def test_documents_of_all_files_follow_each_other_with_an_end_between(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("yz")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "c.jsonl").write_text('{"text": "1"}\n\n{"text": "2"}\n')
    key = prepare([str(tmp_path / "*.txt"), str(tmp_path / "*.jsonl")], "bytes", tmp_path / "data")
    tokens = load(tmp_path / "data", key)
    assert tokens.array.tolist() == [120, 256, 121, 122, 256, 49, 256, 50, 256]
    assert (tokens.vocab_size, tokens.array.dtype.itemsize) == (257, 2)


def test_files_are_sorted_and_come_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.py"):
        (tmp_path / name).write_text(name)
    found = files_of([str(tmp_path / "*.txt"), str(tmp_path / "*")])
    assert [path.name for path in found] == ["a.txt", "b.txt", "c.py"]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.files: .*none.*matches no file"):
        files_of([str(tmp_path / "none*")])


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('{"body": "x"}', 'has no "text"'),
        ('{"text": 3}', 'has no "text"'),
        ("[1]", 'has no "text"'),
        ("{", "is not JSON"),
    ],
)
def test_a_bad_json_line_is_named_by_file_and_number(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(InputError, match="lines.jsonl:2") as caught:
        list(documents(path))
    assert wrong in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="latin.txt: is not UTF-8 at byte 3"):
        list(documents(tmp_path / "latin.txt"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pyarrow's, at import under NumPy 2
def test_parquet_gives_its_text_column(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "rows.parquet")
    parquet.write_table(arrow.table({"n": [1, 2]}), tmp_path / "none.parquet")
    assert list(documents(tmp_path / "rows.parquet")) == ["a", "b"]
    with pytest.raises(InputError, match='has no column "text"'):
        list(documents(tmp_path / "none.parquet"))


def test_empty_text_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="the files hold no text"):
        prepare([str(tmp_path / "empty.jsonl")], "bytes", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_second_start_reads_no_text_and_a_changed_file_makes_new_tokens(tmp_path: Path) -> None:
    corpus, data = tmp_path / "a.txt", tmp_path / "data"
    corpus.write_text("one")
    first = prepare([str(corpus)], "bytes", data)
    written = (data / f"{first}.bin").stat().st_mtime_ns
    assert prepare([str(corpus)], "bytes", data) == first
    assert (data / f"{first}.bin").stat().st_mtime_ns == written
    corpus.write_text("two")
    os.utime(corpus, ns=(1, 1))
    second = prepare([str(corpus)], "bytes", data)
    assert second != first
    assert load(data, second).digest != load(data, first).digest


def test_the_digest_is_of_the_content_wherever_it_was_read(tmp_path: Path) -> None:
    digests = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("same")
        key = prepare([str(tmp_path / place / "*.txt")], "bytes", tmp_path / place / "data")
        digests.append(json.loads((tmp_path / place / "data" / f"{key}.json").read_text())["digest"])
    assert digests[0] == digests[1]


def test_a_crash_before_the_description_leaves_no_cache(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    data = tmp_path / "data"
    key = prepare([str(tmp_path / "a.txt")], "bytes", data)
    (data / f"{key}.json").unlink()
    (data / f"{key}.bin").write_bytes(b"torn")
    assert prepare([str(tmp_path / "a.txt")], "bytes", data) == key
    assert load(data, key).array.tolist() == [*b"text", 256]


def test_tokens_on_a_disk_that_hangs_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a pipe that has no other end waits for ever, as on a file server that is gone."""
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.2)
    (tmp_path / "a.txt").write_text("text")
    data = tmp_path / "data"
    key = prepare([str(tmp_path / "a.txt")], "bytes", data)
    (data / f"{key}.json").unlink()
    os.mkfifo(data / f"{key}.{os.getpid()}.partial")
    with pytest.raises(Unavailable, match=f"{data}, or a disk with data.files, has not answered for 0.2 s"):
        prepare([str(tmp_path / "a.txt")], "bytes", data)
    os.mkfifo(data / f"{key}.json")
    with pytest.raises(Unavailable, match=f"{data} has not answered for 0.2 s"):
        load(data, key)


def test_a_disk_that_is_full_is_not_the_jobs_fault(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    data = tmp_path / "data"
    key = prepare([str(tmp_path / "a.txt")], "bytes", data)
    (data / f"{key}.json").unlink()
    (data / f"{key}.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="No space left on device"):
        prepare([str(tmp_path / "a.txt")], "bytes", data)


def test_text_that_comes_slowly_is_waited_for(tmp_path: Path) -> None:
    pipe, next_one = tmp_path / "slow.txt", threading.Event()
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as out:
            for _ in range(5):
                out.write(b"piece ")
                next_one.wait(0.6)

    writer = threading.Thread(target=write)
    writer.start()
    assert bounded("here", lambda pulse: list(documents(pipe, pulse.beat)), silence_s=2.0) == ["piece " * 5]
    writer.join()


def test_a_tokenizer_may_take_its_time_and_a_tokenizers_folder_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.patience.SILENCE_S", 1.0)
    never = threading.Event()

    class Slow(Bytes):
        def encode(self, text: str) -> NDArray[np.uint8]:
            never.wait(2.5)
            return super().encode(text)

    monkeypatch.setattr("jobs.tokens.tokenizer", lambda name: Slow())
    (tmp_path / "a.txt").write_text("text")
    key = prepare([str(tmp_path / "a.txt")], "bytes", tmp_path / "data")
    assert load(tmp_path / "data", key).array.tolist() == [*b"text", 256]
    monkeypatch.setattr("jobs.tokens.tokenizer", lambda name: never.wait(30))
    with pytest.raises(Unavailable, match="has not answered"):
        prepare([str(tmp_path / "a.txt")], "other", tmp_path / "data")
    never.set()
