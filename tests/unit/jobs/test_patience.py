"""Patience: what is silent for too long is given up and touches nothing more; what gets on has all its time."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import patience
from jobs.checkpoints import checkpoint
from jobs.patience import LANES, GivenUp, Pulse, bounded, is_outside, together, told_as
from jobs.spec import Unavailable


def test_values_come_in_the_order_of_the_acts_and_lanes_work_at_once() -> None:
    meet = threading.Barrier(LANES)

    def act(number: int) -> int:
        if number < LANES:
            meet.wait(30)  # passes only where so many are under way at once
        return number

    assert together("here", [lambda _pulse, n=n: act(n) for n in range(11)]) == list(range(11))
    assert together("here", []) == []


def test_the_first_fault_ends_all_and_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        together("here", [lambda _pulse: {}["a"], lambda _pulse: 1])


def test_silence_is_unavailable_and_names_the_place() -> None:
    never = threading.Event()
    with pytest.raises(Unavailable, match=r"/mnt/nfs has not answered for 0.05 s"):
        bounded("/mnt/nfs", lambda _pulse: never.wait(30), silence_s=0.05)
    never.set()


def test_one_that_gets_on_is_waited_for_beyond_the_silence() -> None:
    step = threading.Event()

    def act(pulse: Pulse) -> str:
        for _ in range(8):
            step.wait(0.05)
            pulse.beat()
        return "done"

    assert bounded("here", act, silence_s=0.2) == "done"


def test_one_that_was_given_up_touches_nothing_more(tmp_path: Path) -> None:
    go_on, ended = threading.Event(), threading.Event()

    def act(pulse: Pulse) -> None:
        try:
            go_on.wait(30)
            pulse.beat()
            (tmp_path / "late").touch()
        except GivenUp:
            ended.set()
            raise

    with pytest.raises(Unavailable):
        bounded("here", act, silence_s=0.05)
    go_on.set()
    assert ended.wait(30)
    assert not (tmp_path / "late").exists()


def test_what_a_disk_says_is_unavailable_and_what_is_missing_is_not() -> None:
    with pytest.raises(Unavailable, match="/c: No space left on device"), told_as("/c"):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError), told_as("/c"):
        raise FileNotFoundError("/c/x")


def test_what_was_raised_because_of_a_disk_is_outside_and_what_a_program_does_wrong_is_not() -> None:
    def because() -> None:
        try:
            raise OSError(errno.ESTALE, "Stale file handle")
        except OSError as fault:
            raise RuntimeError("the model cannot be read") from fault

    def instead() -> None:
        try:
            raise OSError(errno.ESTALE, "Stale file handle")
        except OSError:
            raise RuntimeError("of no account") from None

    with pytest.raises(RuntimeError) as caught:
        because()
    assert is_outside(caught.value)
    with pytest.raises(RuntimeError) as caught:
        instead()
    assert not is_outside(caught.value)
    own = [PermissionError(13, "x"), FileNotFoundError(2, "x"), BrokenPipeError(32, "x"), OSError("x"), ValueError()]
    assert not any(map(is_outside, own))


def test_a_hanging_checkpoints_folder_is_told_of_and_holds_up_no_exit(tmp_path: Path) -> None:
    """Whoever opens a pipe that nobody writes waits for ever, as on a file server that is gone."""
    os.mkfifo(tmp_path / checkpoint.POINTER)
    code = (
        "import sys; from pathlib import Path; from jobs import patience; from jobs.checkpoints import checkpoint\n"
        "patience.SILENCE_S = 0.2\n"
        "checkpoint.newest(Path(sys.argv[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert f"Unavailable: {tmp_path} has not answered for 0.2 s; look at its file server" in ended.stderr


def test_a_hanging_file_of_a_checkpoint_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.2)
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    os.mkfifo(folder / checkpoint.MANIFEST)
    checkpoint.write_atomically(tmp_path / checkpoint.POINTER, {"published": [folder.name]})
    with pytest.raises(Unavailable, match="has not answered"):
        checkpoint.newest(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which can be made to hang as a file server does."""
    if os.geteuid() != 0 or shutil.which("fsfreeze") is None or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root, with fsfreeze and mkfs.ext4, can make a file system hang")
    image, folder = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(bytes(8 << 20))
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_hangs_while_it_is_written_is_told_of_and_left_alone(disk: Path) -> None:
    checkpoint.clear(disk)
    before = sorted(path.name for path in disk.iterdir())
    # Should the test die, the disk thaws all the same.
    thaw = subprocess.Popen(["sh", "-c", f"sleep 20; fsfreeze -u {disk}"], stderr=subprocess.DEVNULL)
    subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
    try:
        patience.SILENCE_S, usual_s = 0.3, patience.SILENCE_S
        with pytest.raises(Unavailable, match=f"{disk}.* has not answered for 0.3 s"):
            checkpoint.begin(checkpoint.partial_of(disk, 7), {"step": 7})
    finally:
        patience.SILENCE_S = usual_s
        subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        thaw.kill()
        thaw.wait()
    for thread in [each for each in threading.enumerate() if each.name == f"lowtide-{checkpoint.partial_of(disk, 7)}"]:
        thread.join(30)
    assert not (checkpoint.partial_of(disk, 7) / checkpoint.META).exists(), "given up, it writes nothing more"
    checkpoint.clear(disk)
    assert sorted(path.name for path in disk.iterdir()) == before
