"""One YAML document, read into a pydantic model or refused with one clear line.
In: a file's path or a mapping, and the model. Out: the model, or InputError that names field and fix.
Job specs and the site file are both read here.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.spec.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """A mapping of the document: unknown keys are refused, values are frozen once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False, protected_namespaces=())


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; InputError where it cannot be read or is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror or fault}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        place = getattr(fault, "problem_mark", None)
        line = f" in line {place.line + 1}" if place is not None else ""
        raise InputError(f"{path}: is not YAML{line}: {getattr(fault, 'problem', None) or fault}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no mapping of keys to values; see the README for an example")
    return document


def parse(mapping: Mapping[str, Any], model: type[Model], source: str) -> Model:
    """`mapping` as `model`; InputError with one line for the first field that is wrong."""
    try:
        return model.model_validate(mapping)
    except ValidationError as fault:
        raise InputError(f"{source}: {_one_line(fault, model)}") from None


def _one_line(fault: ValidationError, model: type[BaseModel]) -> str:
    """The first error as `field: what is wrong; the fix`, and how many more there are."""
    # A misspelt key also makes the right one missing: the misspelling is what the user must see.
    errors = sorted(fault.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden")
    first = errors[0]
    path = [str(part) for part in first["loc"]]
    field = ".".join(path) or "document"
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(model, path[:-1])
        near = difflib.get_close_matches(path[-1], valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        text = f"{field}: unknown key; {hint}valid here: {', '.join(valid)}"
    elif first["type"] == "missing":
        text = f"{field}: is missing; add it"
    else:
        text = f"{field}: {first['msg'].removeprefix('Value error, ')}"
        if first["type"] not in {"value_error", "assertion_error"}:
            text += f" (it is {first['input']!r})"
    return text if len(errors) == 1 else f"{text} (and {len(errors) - 1} more)"


def _valid_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that the section at `path` of the document may have, as users write them."""
    section: type[BaseModel] | None = model
    for key in path:
        annotation = _annotation(section, key) if section is not None else None
        if annotation is not None:
            section = _section(annotation)
    fields = section.model_fields if section is not None else {}
    return [field.alias or name for name, field in fields.items()]


def _annotation(section: type[BaseModel], key: str) -> Any:
    for name, field in section.model_fields.items():
        if (field.alias or name) == key:
            return field.annotation
    return None


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, dict, list, tuple):
        for part in typing.get_args(annotation):
            if (found := _section(part)) is not None:
                return found
    return None
