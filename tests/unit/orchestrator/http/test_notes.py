"""Notes that processes leave one another: each key has its own, and those whose time is over go."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from orchestrator.http.notes import Notes

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def test_no_note_puts_another_out(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    for number in range(1500):
        notes.put(f"key {number}", {"n": number}, NOW, NOW + MINUTE)
    notes.drop("key 0")
    assert notes.find("key 0", NOW) is None
    assert all(notes.find(f"key {number}", NOW) == {"n": number} for number in range(1, 1500))


def test_a_note_holds_until_its_moment(tmp_path: Path) -> None:
    Notes(tmp_path).put("key", {"n": 1}, NOW, NOW + MINUTE)
    assert Notes(tmp_path).find("key", NOW + MINUTE - timedelta(seconds=1)) == {"n": 1}
    assert Notes(tmp_path).find("key", NOW + MINUTE) is None


def test_notes_whose_time_is_over_leave_no_files(tmp_path: Path) -> None:
    for number in range(3):
        Notes(tmp_path).put(f"key {number}", {}, NOW + number * MINUTE, NOW + (number + 1.5) * MINUTE)
    assert len(list(tmp_path.iterdir())) == 2
    assert Notes(tmp_path).find("key 2", NOW + 2 * MINUTE) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "key"}', '{"key": "key", "until": "never", "values": {}}'])
def test_a_damaged_note_is_as_none(tmp_path: Path, text: str) -> None:
    notes = Notes(tmp_path)
    notes.put("key", {}, NOW, NOW + MINUTE)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert notes.find("key", NOW) is None
