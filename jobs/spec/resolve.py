"""A spec file becomes a JobSpec that holds wherever it is read: inline files read, paths absolute, scripts looked at.
In: a YAML file. Out: the JobSpec that the store keeps, or InputError that names field and fix.
`submit`, `run` and `plan` read specs by it.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.spec import entrypoint as entrypoints
from jobs.spec.document import parse, read_mapping
from jobs.spec.errors import InputError
from jobs.spec.job import JobSpec, Model, Script


def read_spec(path: Path) -> JobSpec:
    """The spec in a YAML file, with paths made absolute from the file's folder; InputError names field and fix."""
    return resolve(read_mapping(path), base=path.resolve().parent, source=str(path))


def resolve(mapping: Mapping[str, Any], base: Path, source: str) -> JobSpec:
    """Validate `mapping`, reading inline files (deepspeed) and making paths absolute from `base`."""
    document = dict(mapping)
    if isinstance(document.get("deepspeed"), str):
        document["deepspeed"] = read_mapping(base / document["deepspeed"])
    spec = parse(document, JobSpec, source)
    update: dict[str, Any] = {}
    if spec.data is not None:
        files = [str(base / Path(pattern).expanduser()) for pattern in spec.data.files]
        for given, pattern in zip(spec.data.files, files, strict=True):
            if not any(Path(found).is_file() for found in glob.iglob(pattern, recursive=True)):
                raise InputError(f"{source}: data.files: {given!r} matches no file below {base}; mend the pattern")
        update["data"] = spec.data.model_copy(
            update={"files": files, "tokenizer": _local(spec.data.tokenizer, base, keep=("bytes",))}
        )
    if spec.model is not None:
        update["model"] = _local_model(spec.model, base)
    if spec.distill is not None:
        teacher = _local_model(spec.distill.teacher, base)
        update["distill"] = spec.distill.model_copy(update={"teacher": teacher})
    if spec.working_dir is not None:
        folder = base / Path(spec.working_dir).expanduser()
        if not folder.is_dir():
            raise InputError(f"{source}: working_dir: {folder} is no folder; mend the path")
        update["working_dir"] = str(folder)
    if spec.script is not None:
        script = update["script"] = _looked_at(spec.script, base, update.get("working_dir"), source)
        if not script.asks and spec.carbon.policy in ("threshold", "slots", "greedy", "optimal"):
            update["carbon"] = spec.carbon.model_copy(update={"policy": "window"})  # one stretch: it cannot pause
    return spec.model_copy(update=update)


def _looked_at(script: Script, base: Path, working_dir: str | None, source: str) -> Script:
    """The script with its folder and whether it asks; InputError where there is no such file or folder."""
    if working_dir is not None and script.folder is not None:
        raise InputError(f"{source}: script.folder: runs in place, working_dir in a copy; give one of them")
    folder = Path(working_dir or base / Path(script.folder or ".").expanduser())
    if not folder.is_dir():
        raise InputError(f"{source}: script.folder: {folder} is no folder; name the one that the script runs in")
    name = entrypoints.script_of(script.entrypoint)
    if name is not None and not (folder / name).is_file():
        raise InputError(f"{source}: script.entrypoint: no {name!r} in {folder}; mend the path, or script.folder")
    asks = script.asks if script.asks is not None else bool(entrypoints.asks(script.entrypoint, folder))
    return script.model_copy(update={"folder": None if working_dir else str(folder), "asks": asks})


def _local_model(model: Model, base: Path) -> Model:
    return model if model.path is None else model.model_copy(update={"path": _local(model.path, base)})


def _local(name: str, base: Path, keep: tuple[str, ...] = ()) -> str:
    """`name` as an absolute path where such a folder exists; else as it is, for it may be a hub id."""
    folder = base / Path(name).expanduser()
    return name if name in keep or not folder.exists() else str(folder)
