"""doctor tries out the places where a site keeps its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.place import _site_findings


def test_doctor_tries_out_every_place_for_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.checkpoints.target.WAITS_S", (0.0, 0.0))
    (tmp_path / "a-file").touch()
    site = tmp_path / "lowtide.yaml"
    site.write_text(
        "zones:\n"
        "  A: {provider: demo}\n"
        f"  B: {{provider: demo, checkpoints: '{(tmp_path / 'b').as_uri()}'}}\n"
        "  C: {provider: demo, checkpoints: a-file/c}\n"
    )
    found = {each.what: each for each in _site_findings(site)}
    assert [what for what in found if what.startswith("checkpoints")] == ["checkpoints of B", "checkpoints of C"]
    assert found["checkpoints of B"].ok and "can be written, read and cleared" in found["checkpoints of B"].text
    assert not found["checkpoints of C"].ok and "a-file/c does not answer" in found["checkpoints of C"].text
    assert list((tmp_path / "b").iterdir()) == []
