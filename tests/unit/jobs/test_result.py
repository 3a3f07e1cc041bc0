"""The finished model: replaced whole, and never by a segment that another has taken over from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch.distributed as dist

from jobs import result
from jobs.checkpoints import fence
from jobs.engine import Engine
from jobs.group import Group
from jobs.place import Place
from jobs.spec import Fenced


class Exporter:
    """What of an engine the result needs: a model of one file, and what happens while it is written."""

    def __init__(self, content: str, meanwhile: Callable[[], Any] = lambda: None) -> None:
        self._content, self._meanwhile = content, meanwhile

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(self._content)
        self._meanwhile()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        yield Group(Place(0, 1, 0, "cpu", tmp_path_factory.mktemp("group"), None, "job-1"))
        dist.destroy_process_group()


def write(group: Group, folder: Path, exporter: Exporter, segment: int, step: int = 9) -> None:
    result.write(group, cast(Engine, exporter), folder, step, {"loss": 1.0}, "bytes", segment)


def model(folder: Path) -> str:
    return (folder / "final" / "model" / "model.safetensors").read_text()


def test_a_later_result_replaces_the_one_before_and_leaves_nothing_beside(group: Group, tmp_path: Path) -> None:
    for segment, step in ((0, 3), (1, 6), (2, 9)):
        fence.claim(tmp_path, segment)
        write(group, tmp_path, Exporter(f"of step {step}"), segment, step)
        assert model(tmp_path) == f"of step {step}"
        assert result.read(tmp_path, step) == {"loss": 1.0} and result.read(tmp_path, step + 1) is None
    assert [path.name for path in tmp_path.iterdir() if "final" in path.name] == ["final"]


def test_one_that_another_has_taken_over_from_replaces_nothing(group: Group, tmp_path: Path) -> None:
    fence.claim(tmp_path, 1)

    def other_ends() -> None:
        fence.claim(tmp_path, 2)
        write(group, tmp_path, Exporter("of the other"), 2)

    with pytest.raises(Fenced, match="fenced by segment 2"):
        write(group, tmp_path, Exporter("late", other_ends), 1)
    assert model(tmp_path) == "of the other"
    with pytest.raises(Fenced, match="fenced by segment 2"):
        write(group, tmp_path, Exporter("later still"), 1)
    assert model(tmp_path) == "of the other"


def test_one_that_stalls_with_the_result_in_its_hands_gives_it_back(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence.claim(tmp_path, 1)
    write(group, tmp_path, Exporter("earlier"), 1, step=3)
    plain, looks = fence.check, 0

    def stalls(folder: Path, segment: int) -> None:
        nonlocal looks
        plain(folder, segment)
        looks += segment == 1
        if looks == 2 and segment == 1:  # the last look before it replaces what is there
            looks = 3
            fence.claim(folder, 2)
            write(group, folder, Exporter("of the other"), 2)

    monkeypatch.setattr(fence, "check", stalls)
    with pytest.raises(Fenced, match="fenced by segment 2"):
        write(group, tmp_path, Exporter("late"), 1)
    assert looks == 3 and model(tmp_path) == "of the other"
