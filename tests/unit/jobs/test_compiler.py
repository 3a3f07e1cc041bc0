"""A missing C++ compiler or ninja is named before anything slow starts."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import compiler


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder, and an interpreter in another without ninja."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    return tmp_path / "bin"


def install(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(stat.S_IRWXU)


def test_a_missing_compiler_is_named_with_what_to_install(tools: Path) -> None:
    install(tools, "ninja")
    missing = compiler.check()
    assert missing is not None and "apt install g++" in missing


def test_a_missing_ninja_is_named(tools: Path) -> None:
    install(tools, "c++")
    missing = compiler.check()
    assert missing is not None and "pip install ninja" in missing


def test_nothing_is_missing_where_both_are_there(tools: Path) -> None:
    install(tools, "c++")
    install(tools, "ninja")
    assert compiler.check() is None


def test_cxx_names_the_compiler(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tools, "c++")
    install(tools, "ninja")
    monkeypatch.setenv("CXX", "clang++-99")
    assert "clang++-99" in (compiler.check() or "")


def test_what_the_environment_installed_is_found_though_it_is_not_activated(tools: Path) -> None:
    compiler.put_interpreter_on_path()
    compiler.put_interpreter_on_path()
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), str(tools)]


BUILDER = """
import sys
from jobs import compiler
with compiler._alone():
    print("alone", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_builder_left_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(compiler.FOLDER, raising=False)
    with subprocess.Popen([sys.executable, "-c", BUILDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None and builder.stdout.readline() == b"alone\n"
        (folder,) = (tmp_path / "lowtide" / "compiled").iterdir()
        (folder / "shm").mkdir()
        baton = folder / "shm" / "lock"
        baton.touch()
        builder.kill()
    with compiler._alone():
        assert not baton.exists()
        assert os.environ[compiler.FOLDER] == str(folder)
    assert compiler.FOLDER not in os.environ


def test_a_folder_that_the_user_chose_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiler.FOLDER, str(tmp_path))
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / "lock").touch()
    with compiler._alone():
        assert os.environ[compiler.FOLDER] == str(tmp_path)
    assert (tmp_path / "shm" / "lock").exists()
