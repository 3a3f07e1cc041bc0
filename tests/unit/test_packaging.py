"""What is installed is what is here: packages listed one by one, and every file that the code reads at run time."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import cluster
import jobs
import orchestrator

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "pyproject.toml"

pytestmark = pytest.mark.skipif(not PROJECT.is_file(), reason="not in a checkout")


def test_every_package_is_listed() -> None:
    listed = set(re.findall(r'^  "((?:orchestrator|cluster|jobs)[a-z.]*)",$', PROJECT.read_text(), re.MULTILINE))
    wings = [Path(str(wing.__file__)).parent for wing in (orchestrator, cluster, jobs)]
    found = {
        ".".join(init.parent.relative_to(wing.parent).parts) for wing in wings for init in wing.rglob("__init__.py")
    }
    assert found <= listed


def test_every_module_opens_with_three_lines() -> None:
    for wing in ("orchestrator", "cluster", "jobs"):
        for module in (ROOT / wing).rglob("*.py"):
            lines = module.read_text(encoding="utf-8").splitlines()
            assert lines[0].startswith('"""') and lines[1].startswith("In: "), f"{module}: {lines[:2]}"
            assert "Out: " in " ".join(lines[1:3]), f"{module} says not what goes out"


def test_the_command_is_lowtide() -> None:
    assert [entry.value for entry in entry_points(group="console_scripts", name="lowtide")] == ["orchestrator.cli:main"]
