"""The spec of a user's own script: what is found out at submission, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.spec import InputError, JobSpec, read_spec


def spec_of(folder: Path, source: str = "import lowtide\n", **sections: Any) -> JobSpec:
    """A script job whose train.py is `source`."""
    (folder / "src").mkdir(exist_ok=True)
    for place in (folder, folder / "src"):
        (place / "train.py").write_text(source)
    document = {"name": "own", "job": "script", "script": {"entrypoint": "train.py"}, **sections}
    (folder / "own.yaml").write_text(yaml.safe_dump(document))
    return read_spec(folder / "own.yaml")


def test_a_script_runs_in_the_folder_of_its_spec_or_where_it_says(tmp_path: Path) -> None:
    script = spec_of(tmp_path).script
    assert script is not None and (script.folder, script.asks) == (str(tmp_path), True)
    script = spec_of(tmp_path, script={"entrypoint": "train.py", "folder": "src"}).script
    assert script is not None and script.folder == str(tmp_path / "src")


def test_a_script_in_a_working_dir_runs_in_its_copy(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, working_dir="src")
    assert spec.working_dir == str(tmp_path / "src")
    assert spec.script is not None and spec.script.folder is None and spec.script.asks


def test_a_script_that_never_asks_is_planned_as_one_stretch(tmp_path: Path) -> None:
    blind = spec_of(tmp_path, "print(1)\n")
    assert blind.is_blind() and blind.carbon.policy == "window"
    assert spec_of(tmp_path, "print(1)\n", carbon={"policy": "now"}).carbon.policy == "now"
    asking = spec_of(tmp_path, "print(1)\n", script={"entrypoint": "train.py", "asks": True})
    assert not asking.is_blind() and asking.carbon.policy == "optimal"
    assert not spec_of(tmp_path).is_blind()


def test_its_width_is_the_largest_unless_it_is_elastic(tmp_path: Path) -> None:
    assert spec_of(tmp_path, workers={"count": "1..4"}).worker_counts() == (4,)
    elastic = {"entrypoint": "train.py", "elastic": True}
    assert spec_of(tmp_path, workers={"count": "1..4"}, script=elastic).worker_counts() == (1, 2, 3, 4)


def test_it_is_read_back_from_the_store_as_it_was(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, working_dir="src", secrets=["HF_TOKEN"])
    assert JobSpec.model_validate(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"script": {"entrypoint": "torchrun train.py"}}, "script.entrypoint: starts ranks by torchrun"),
        ({"script": {"entrypoint": "trian.py"}}, "script.entrypoint: no 'trian.py' in "),
        ({"script": {"entrypoint": "train.py", "folder": "none"}}, "script.folder: .*/none is no folder"),
        ({"working_dir": "none"}, "working_dir: .*/none is no folder"),
        (
            {"working_dir": "src", "script": {"entrypoint": "train.py", "folder": "src"}},
            "script.folder: runs in place, working_dir in a copy; give one of them",
        ),
        ({"secrets": ["HF_TOKEN=abc"]}, "secrets: 'HF_TOKEN=abc' is no name of a variable; give names alone"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path, sections: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        spec_of(tmp_path, **sections)
