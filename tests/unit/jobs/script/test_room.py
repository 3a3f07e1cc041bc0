"""A script that a full disk ended is told from one that ended for another reason."""

from __future__ import annotations

import pytest

from jobs.script.child import cause
from jobs.script.room import wants_room

TORCH = "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"


@pytest.mark.parametrize(
    ("words", "while_saving", "else_"),
    [
        ("OSError: [Errno 28] No space left on device", True, True),
        ("OSError: [Errno 122] Disk quota exceeded: 'a.pt'", True, True),
        ('safetensors_rust.SafetensorError: IoError(Os { code: 28, kind: StorageFull, message: "" })', True, True),
        (TORCH, True, False),
        ("OSError: [Errno 28] No space left on device\nValueError: that was forgiven", False, False),
        ("OSError: [Errno 2] No such file or directory: 'a.pt'", False, False),
        ("", False, False),
    ],
)
def test_a_disk_that_is_full_is_told_from_other_ends(words: str, while_saving: bool, else_: bool) -> None:
    said = cause(1, words)
    assert (wants_room(said, saves=True), wants_room(said, saves=False)) == (while_saving, else_)
