"""Mirroring: what is published is at the URL, complete before it counts, whatever ends the sending half-way."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from jobs.checkpoints import checkpoint, mirror, target
from jobs.checkpoints.bring import bring
from jobs.checkpoints.mirror import Mirror, send
from jobs.checkpoints.shelf import Shelf
from jobs.checkpoints.target import Target
from jobs.pace import Parts
from jobs.patience import GivenUp, bounded
from jobs.place import Place
from tests.unit.jobs.checkpoints.shelves import contents, save, write


def brought_step(place: str, folder: Path) -> int | None:
    found = bring(folder, [place], keep=2).found
    return found.step if found else None


def test_what_is_sent_is_found_whole_and_older_ones_go(place: str, tmp_path: Path) -> None:
    at = Target(place)
    for step in (1, 2, 3):
        published = save(tmp_path / "here", step)
        sent = send(at, published, keep=2)
        assert (sent.name, sent.sent_bytes) == (published.folder.name, published.size_bytes)
    assert at.folders() == ["step-00000002", "step-00000003"]
    brought = bring(tmp_path / "new", [place], keep=2)
    assert brought.found is not None
    assert contents(brought.found.folder) == contents(tmp_path / "here" / "step-00000003")


def test_what_is_there_already_is_not_sent_again(place: str, tmp_path: Path) -> None:
    published = save(tmp_path / "here", 1)
    send(Target(place), published, keep=2)
    Target(place).remove("published.json")  # as if it had ended between the manifest and the pointer
    assert send(Target(place), published, keep=2).sent_bytes == 0
    assert brought_step(place, tmp_path / "new") == 1


def test_zeros_go_compressed_over_a_slow_network_and_noise_as_it_is(place: str, tmp_path: Path) -> None:
    slow = 20e6
    zeros = save(tmp_path / "zeros", 1, size_bytes=4 << 20, random=False)
    sent = send(Target(f"{place}/zeros"), zeros, 2, slow)
    assert sent.sent_bytes < 0.01 * zeros.size_bytes
    noise = save(tmp_path / "noise", 1, size_bytes=4 << 20)
    assert send(Target(f"{place}/noise"), noise, 2, slow).sent_bytes == noise.size_bytes
    for name, published in (("zeros", zeros), ("noise", noise)):
        brought = bring(tmp_path / f"new-{name}", [f"{place}/{name}"], keep=2)
        assert brought.found is not None and contents(brought.found.folder) == contents(published.folder)
    assert bring(tmp_path / "again", [f"{place}/zeros"], keep=2).moved_bytes == sent.sent_bytes


def test_the_bandwidth_is_measured_and_nothing_of_it_stays(place: str, tmp_path: Path) -> None:
    published = save(tmp_path / "here", 1, size_bytes=2 << 20)
    found = mirror.bandwidth(Target(place), published)
    assert found is not None and found > 1e4
    assert not Target(place).folders()
    assert all(Target(place).read(f"probe-{lane}") is None for lane in range(4))


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_killed_in_the_middle_the_one_before_stays_in_force(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = (tmp_path / "away").as_uri() if kind == "file" else f"{request.getfixturevalue('bucket')}/job"
    here = tmp_path / "here"
    send(Target(url), save(here, 1), keep=2)
    save(here, 2, size_bytes=1 << 20)
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from jobs.checkpoints import checkpoint, mirror\n"
        "from jobs.checkpoints.target import Target\n"
        "def slow(path, pulse, plain=mirror._chunks):\n"
        "    for number, chunk in enumerate(plain(path, pulse)):\n"
        "        if path.name == 'rank-1.pt':\n"
        "            print('half-way', flush=True)\n"
        "            time.sleep(600)\n"
        "        yield chunk\n"
        "mirror._chunks = slow\n"
        "mirror.send(Target(sys.argv[1]), checkpoint.newest(Path(sys.argv[2])), 2)\n"
    )
    sender = subprocess.Popen([sys.executable, "-c", code, url, str(here)], stdout=subprocess.PIPE)
    assert sender.stdout is not None and sender.stdout.readline() == b"half-way\n"
    sender.send_signal(signal.SIGKILL)
    sender.wait()
    sender.stdout.close()
    assert brought_step(url, tmp_path / "new") == 1
    latest = checkpoint.newest(here)
    assert latest is not None
    send(Target(url), latest, keep=2)
    assert brought_step(url, tmp_path / "newer") == 2


def test_a_mirror_sends_the_newest_and_holds_what_it_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, away = tmp_path / "here", (tmp_path / "away").as_uri()
    begun, go_on, sent = threading.Event(), threading.Event(), []

    def watched(at: Target, published: checkpoint.Published, *rest: object, plain=send) -> mirror.Sent:
        sent.append(published.step)
        if published.step == 1:
            begun.set()
            go_on.wait(60)
        return plain(at, published, *rest)

    monkeypatch.setattr(mirror, "send", watched)
    shelf = Shelf(Place(0, 1, 0, "cpu", here, None, "s", mirror=away), keep=1, parts=Parts())
    assert shelf.find() is None
    for step in (1, 2, 3):
        partial = write(here, step)
        shelf.publish(step, checkpoint.seal(partial))
        assert begun.wait(60)
        assert (here / "step-00000001").is_dir(), "it is being sent"
    go_on.set()
    shelf.finish()
    assert sent == [1, 3], "what waits gives way to a newer one"
    assert brought_step(away, tmp_path / "new") == 3
    shelf.publish(4, checkpoint.seal(write(here, 4)))
    shelf.finish()
    assert checkpoint.newest(here).step == 4 and sorted(path.name for path in here.glob("step-*")) == ["step-00000004"]


def test_the_finished_model_is_sent_as_it_is(place: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shelf = Shelf(Place(0, 1, 0, "cpu", here, None, "s", mirror=place), keep=2, parts=Parts())
    shelf.find()
    (here / "final" / "model").mkdir(parents=True)
    (here / "final" / "model" / "config.json").write_text("{}")
    shelf.publish(5, checkpoint.seal(write(here, 5)))
    shelf.finish(result=True)
    assert Target(place).read("final/model/config.json") == b"{}"
    assert brought_step(place, tmp_path / "new") == 5


def test_a_working_folder_that_is_gone_comes_back_from_the_mirror_and_a_late_one_catches_up(
    place: str, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    send(Target(place), save(here, 1), keep=2)
    at = Place(0, 1, 0, "cpu", here, None, "s", mirror=place)
    save(here, 2)  # its sending was cut short
    parts = Parts()
    shelf = Shelf(at, keep=2, parts=parts)
    found = shelf.find()
    assert found is not None and found.step == 2 and shelf.moved_bytes == 0 and "transfer" not in parts.seconds
    shelf.finish()
    shutil.rmtree(here)
    shelf = Shelf(at, keep=2, parts=parts)
    found = shelf.find()
    assert found is not None and found.step == 2 and shelf.moved_bytes == found.size_bytes
    assert parts.seconds["transfer"] > 0
    shelf.finish()


def test_a_url_that_does_not_answer_costs_no_checkpoint_and_is_told(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "WAITS_S", (0.01, 0.01))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    told: list[str] = []
    sender = Mirror(f"{bucket}/job", 2, told.append)
    sender.push(save(tmp_path / "here", 1))
    sender.finish()
    assert len(told) == 1 and told[0].startswith(f"step-00000001 is not at {bucket}/job, only in the working folder")


def test_a_bucket_that_is_not_there_is_told_and_never_made(bucket: str, tmp_path: Path) -> None:
    told: list[str] = []
    sender = Mirror(f"{bucket}-not/job", 2, told.append)
    sender.push(save(tmp_path / "here", 1))
    sender.finish()
    assert "is not at" in told[0]
    assert brought_step(f"{bucket}-not/job", tmp_path / "new") is None


@pytest.mark.parametrize("size_bytes", [1, 20 << 20])
def test_what_was_given_up_in_the_middle_is_uploaded_by_nobody_later(bucket: str, size_bytes: int) -> None:
    target = Target(f"{bucket}/job")

    def chunks() -> Iterator[bytes]:
        yield bytes(size_bytes)
        raise GivenUp

    with pytest.raises(GivenUp):
        bounded(target.place, lambda pulse: target.send("half.bin", chunks(), pulse))
    gc.collect()  # a file that is left open ends itself then
    assert target.files() == []
    assert fsspec.filesystem("s3", skip_instance_cache=True).list_multipart_uploads(bucket.removeprefix("s3://")) == []


def test_a_target_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.3)
    away = tmp_path / "away" / "step-00000001"
    away.mkdir(parents=True)
    os.mkfifo(away / "meta.json")
    told: list[str] = []
    sender = Mirror((tmp_path / "away").as_uri(), 2, told.append)
    sender.push(save(tmp_path / "here", 1))
    sender.finish()
    assert "has not answered for 0.3 s" in told[0]


def test_sending_costs_the_loop_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def send_for_ever(*_: object) -> mirror.Sent:
        never.wait(60)
        return mirror.Sent("step-00000001", 1, 1, 1.0)

    monkeypatch.setattr(mirror, "send", send_for_ever)
    sender = Mirror((tmp_path / "away").as_uri(), 2, lambda _text: None)
    sender.push(save(tmp_path / "here", 1))
    assert sender.held() == {"step-00000001"}, "push came back while it is being sent"
    assert not never.is_set()
    never.set()
    sender.finish()
    assert sender.held() == set()
