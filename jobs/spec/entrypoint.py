"""The entrypoint of a script: the command that each worker runs, and whether it asks lowtide for checkpoints.
In: `train.py --epochs 3`, and the folder that it is run in. Out: a command without a shell; True where it asks.
The spec refuses what cannot work; the submission looks; jobs.script starts the command.
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

LAUNCHERS = (
    "torchrun",
    "deepspeed",
    "accelerate",
    "mpirun",
    "srun",
    "torch.distributed.run",
    "torch.distributed.launch",
)
"""They start ranks of their own; here each worker is a rank already."""
_SHELL = re.compile(r"^(&&|\|\|?|;|&|[<>]{1,2}.*|\d?>.*)$")
_PYTHON = re.compile(r"^python(3(\.\d+)?)?$")
HOOK = "lowtide"


def command(entrypoint: str, python: str) -> list[str]:
    """The words of the command; a script alone, or a `python` of no path, is run by `python`.

    ValueError names what cannot be run.
    """
    try:
        words = shlex.split(entrypoint)
    except ValueError as fault:
        raise ValueError(f"{entrypoint!r} is not a command ({fault})") from None
    if not words:
        raise ValueError("is empty; write e.g. train.py --epochs 3")
    first = words[0]
    if "=" in first:
        raise ValueError(f"begins with the variable {first!r}; write it under env")
    if (shell := next((word for word in words if _SHELL.match(word)), None)) is not None:
        raise ValueError(f"has {shell!r}, and no shell reads it; write one command, or name a script that holds them")
    launcher = words[2] if _PYTHON.match(first) and words[1:2] == ["-m"] and len(words) > 2 else Path(first).name
    if launcher in LAUNCHERS:
        raise ValueError(
            f"starts ranks by {launcher}, and each worker is a rank already; write the script itself, as train.py"
        )
    if first.endswith(".py"):
        return [python, *words]
    return [python, *words[1:]] if _PYTHON.match(first) else words


def script_of(entrypoint: str) -> str | None:
    """The Python file that the entrypoint runs, as it names it; None where it runs a module or another program."""
    for word in command(entrypoint, "python"):
        if word.endswith(".py"):
            return word
        if word in ("-m", "-c"):
            return None
    return None


def asks(entrypoint: str, folder: Path) -> bool | None:
    """Whether the script, or a module beside it that it imports, imports lowtide; None where it cannot be read.

    It is looked at and not run: an import by a computed name is not seen.
    """
    firsts = _looked_at(entrypoint, folder)
    if not firsts:
        return None
    roots = {firsts[0].parent, folder}
    seen, rest = set[Path](), firsts
    while rest:
        path = rest.pop()
        if path in seen:
            continue
        seen.add(path)
        modules = _imports(path)
        if HOOK in {module.partition(".")[0] for module in modules}:
            return True
        rest += [found for module in modules for root in roots for found in _files(root, module)]
    return False


def _looked_at(entrypoint: str, folder: Path) -> list[Path]:
    """The files where the look begins: the script, or those of the module of `python -m`; none for other programs."""
    name, words = script_of(entrypoint), command(entrypoint, "python")
    if name is not None:
        return [folder / name] if (folder / name).is_file() else []
    if "-m" not in words[:-1]:
        return []
    module = words[words.index("-m") + 1]
    return [*_files(folder, module), *_files(folder, f"{module}.__main__")]


def _imports(path: Path) -> set[str]:
    """The modules that a file names in its import statements, those of its own package from its folder's view."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return set()
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found |= {base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)} - {""}
    return found


def _files(root: Path, module: str) -> list[Path]:
    """The file of a module below `root`, and those of the packages that hold it."""
    parts, found = module.split("."), list[Path]()
    for n in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:n])
        found += [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found
