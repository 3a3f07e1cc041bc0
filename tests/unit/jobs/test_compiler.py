"""A missing C++ compiler is named before anything slow starts; an op is built once, whoever is killed meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
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


def test_in_a_folder_that_the_user_chose_only_what_nobody_builds_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiler.FOLDER, str(tmp_path))
    for name in ("living", "dead"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    with (tmp_path / "living" / "lock").open(), compiler._alone():
        assert os.environ[compiler.FOLDER] == str(tmp_path)
    assert os.environ[compiler.FOLDER] == str(tmp_path)
    assert (tmp_path / "living" / "lock").exists() and not (tmp_path / "dead").exists()


SOURCE = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tide", 0, -1, 0};
PyMODINIT_FUNC PyInit_tide(void) {
    PyObject *made = PyModule_Create(&module);
    PyModule_AddIntConstant(made, "answer", 42);
    return made;
}
"""
"""An extension that compiles in a moment, for it includes nothing of torch."""
OP = """
import sys
from jobs import compiler
compiler.put_interpreter_on_path()
compiler.guard()
compiler.guard()
from deepspeed.ops.op_builder.builder import OpBuilder

class Tide(OpBuilder):
    def __init__(self):
        super().__init__("tide")

    def absolute_name(self):
        return "deepspeed.ops.tide"

    def sources(self):
        return [sys.argv[1]]

print(Tide().load(verbose=False).answer, flush=True)
"""
COMPILER = """#!/bin/sh
case "$*" in *tide.cpp*)
    echo $$ >> {folder}/compiled
    while [ -e {folder}/hold ]; do sleep 0.05; done
esac
exec c++ "$@"
"""


@pytest.fixture
def op(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], subprocess.Popen[str]]:
    """Starts a process that has DeepSpeed build and load an op; its compiler waits while there is a file `hold`."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "tide.cpp").write_text(SOURCE)
    (tmp_path / "op.py").write_text(OP)
    (tmp_path / "cxx").write_text(COMPILER.format(folder=tmp_path))
    (tmp_path / "cxx").chmod(stat.S_IRWXU)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(compiler.FOLDER, raising=False)
    command = [sys.executable, str(tmp_path / "op.py"), str(tmp_path / "tide.cpp")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return lambda: subprocess.Popen(command, **pipes)  # type: ignore[call-overload]


def wait_for(path: Path, builder: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 240
    while not path.exists():
        assert builder.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("chosen", [False, True])
def test_an_op_whose_builder_was_killed_in_the_middle_is_built_by_the_next(
    op: Callable[[], subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bool
) -> None:
    if chosen:
        monkeypatch.setenv(compiler.FOLDER, str(tmp_path / "chosen"))
    (tmp_path / "hold").touch()
    with op() as killed:
        wait_for(tmp_path / "compiled", killed)
        assert list(tmp_path.rglob("tide/lock")), "torch guards the build"
        killed.kill()  # its compiler lives on, as a grandchild of no one
        killed.wait()
        (tmp_path / "hold").unlink()
        with op() as following:
            said, _ = following.communicate(timeout=240)
    assert (following.returncode, said.splitlines()[-1]) == (0, "42"), said
    assert not list(tmp_path.rglob("tide/lock"))


def test_of_two_that_need_an_op_one_builds_it(op: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    with op() as first, op() as second:
        wait_for(tmp_path / "compiled", first)
        (tmp_path / "hold").unlink()
        said = [each.communicate(timeout=240)[0].splitlines()[-1] for each in (first, second)]
    assert said == ["42", "42"]
    compiled = (tmp_path / "compiled").read_text().splitlines()
    assert len(compiled) == 1
