"""Entrypoints: what can be run, and which scripts ask lowtide."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.spec.entrypoint import asks, command, script_of


@pytest.mark.parametrize(
    ("entrypoint", "words", "script"),
    [
        ("train.py --epochs 3", ["PY", "train.py", "--epochs", "3"], "train.py"),
        ("python train.py", ["PY", "train.py"], "train.py"),
        ("python3.11 -u src/train.py", ["PY", "-u", "src/train.py"], "src/train.py"),
        ("/opt/conda/bin/python train.py 'a b'", ["/opt/conda/bin/python", "train.py", "a b"], "train.py"),
        ("python -m package.train", ["PY", "-m", "package.train"], None),
        ("./run.sh fast", ["./run.sh", "fast"], None),
    ],
)
def test_a_command_runs_without_a_shell(entrypoint: str, words: list[str], script: str | None) -> None:
    assert command(entrypoint, "PY") == words
    assert script_of(entrypoint) == script


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("", "is empty"),
        ("train.py 'a", "is not a command"),
        ("LR=1 python train.py", "write it under env"),
        ("cd src && python train.py", "no shell reads it"),
        ("python train.py > log", "no shell reads it"),
        ("torchrun --nproc-per-node 2 train.py", "each worker is a rank already"),
        ("accelerate launch train.py", "each worker is a rank already"),
        ("python -m torch.distributed.run train.py", "each worker is a rank already"),
        ("/opt/bin/deepspeed train.py", "each worker is a rank already"),
    ],
)
def test_what_cannot_work_is_refused_with_its_fix(entrypoint: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        command(entrypoint, "PY")


@pytest.mark.parametrize(
    ("files", "asking"),
    [
        ({"train.py": "import torch\n"}, False),
        ({"train.py": "# import lowtide\nname = 'lowtide'\n"}, False),
        ({"train.py": "import lowtide\n"}, True),
        ({"train.py": "def main():\n    from lowtide import due, save\n"}, True),
        ({"train.py": "from loop import train\n", "loop.py": "import lowtide as tide\n"}, True),
        ({"train.py": "from src.loop import train\n", "src/loop.py": "from . import tide\n", "src/tide.py": ""}, False),
        ({"train.py": "from src import loop\n", "src/__init__.py": "", "src/loop.py": "import lowtide\n"}, True),
        ({"train.py": "import loop\n", "loop.py": "import train\n"}, False),
        ({"train.py": "def broken(:\n"}, False),
        ({"other.py": "import lowtide\n"}, None),
    ],
)
def test_a_script_asks_where_it_or_what_it_imports_beside_it_does(
    tmp_path: Path, files: dict[str, str], asking: bool | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert asks("train.py --steps 3", tmp_path) is asking


def test_a_module_is_looked_at_too_and_another_program_is_not(tmp_path: Path) -> None:
    (tmp_path / "tide").mkdir()
    (tmp_path / "tide" / "__main__.py").write_text("import lowtide\n")
    (tmp_path / "tide" / "run.py").write_text("print(1)\n")
    assert asks("python -m tide --steps 3", tmp_path) is True
    assert asks("python -m tide.run", tmp_path) is False
    assert asks("python -m elsewhere", tmp_path) is None
    assert asks("./run.sh", tmp_path) is None
