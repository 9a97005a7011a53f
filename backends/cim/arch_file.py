"""Architecture files: YAML to `Architecture`, with the file and line of every mistake."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from backends.cim.arch import Architecture
from ssmc.diagnostics import UserError

DEFAULT = "cim-large"


@cache
def architectures() -> tuple[str, ...]:
    """Names of the packaged architectures of this target."""
    found = []
    for entry in resources.files("samples").joinpath("arch").iterdir():
        if entry.name.startswith("cim-") and entry.name.endswith(".yaml"):
            found.append(entry.name.removesuffix(".yaml"))
    return tuple(sorted(found))


def load_arch(source: str | None) -> Architecture:
    """A packaged name, the text of an architecture, or the path of a file.

    Raises UserError with file:line:column for text that is not YAML, unknown keys, missing ones and values
    out of range.
    """
    source = DEFAULT if source is None else source
    if source in architectures():
        text = resources.files("samples").joinpath("arch", f"{source}.yaml").read_text(encoding="utf-8")
        return parse_arch(text, f"{source}.yaml")
    if "\n" in source:
        return parse_arch(source, "architecture")
    try:
        return parse_arch(Path(source).read_text(encoding="utf-8"), source)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the architecture '{source}'",
            why=str(error),
            hint=f"give the path of a YAML file, or one of: {', '.join(architectures())}",
        ) from None


def arch_text(arch: Architecture) -> str:
    """Canonical YAML of an architecture."""
    return yaml.safe_dump(arch.model_dump(), sort_keys=False)


@cache
def parse_arch(text: str, file: str) -> Architecture:
    """An architecture from YAML text; `file` is for messages. Raises UserError."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise UserError("this is not YAML", where=where, why=str(error.problem or error.context)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError("this is not YAML", where=file, why=str(error)) from None
    if not isinstance(value, Mapping):
        raise UserError("an architecture file is a mapping of sections", where=f"{file}:1:1")
    try:
        return Architecture.model_validate(value)
    except ValidationError as error:
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] == "missing")
        problems = [_problem(e, tree, file) for e in errors]
        first = problems[0]
        if len(problems) > 1:
            first.why = "\n       ".join([first.why] * bool(first.why) + [str(p).splitlines()[0] for p in problems[1:]])
        raise first from None


def _problem(error: Any, tree: Any, file: str) -> UserError:
    path = tuple(error["loc"])
    node = tree
    for depth, key in enumerate(path):
        found = _child(node, key, at_key=depth == len(path) - 1 and error["type"] == "extra_forbidden")
        if found is None:
            break
        node = found
    where = f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    key = ".".join(map(str, path)) or "the architecture"
    match error["type"]:
        case "extra_forbidden":
            known = _keys(path[:-1])
            near = difflib.get_close_matches(str(path[-1]), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the keys here are: {', '.join(known)}"
            return UserError(f"unknown key '{key}'", where=where, hint=hint)
        case "missing":
            return UserError(f"the key '{key}' is missing", where=where, hint=_meaning(path))
    given = f"; given {error['input']!r}" if not isinstance(error["input"], Mapping) else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    return UserError(f"'{key}': {message[:1].lower()}{message[1:]}{given}", where=where, hint=_meaning(path))


def _child(node: Any, key: Any, *, at_key: bool) -> Any:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name if at_key else value
    return None


def _model(path: tuple[Any, ...]) -> type[BaseModel] | None:
    model: Any = Architecture
    for key in path:
        field = model.model_fields.get(key)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        model = field.annotation
    found: type[BaseModel] = model
    return found


def _keys(path: tuple[Any, ...]) -> list[str]:
    model = _model(path)
    return [] if model is None else list(model.model_fields)


def _meaning(path: tuple[Any, ...]) -> str:
    """What a key means, for the hint of an error."""
    model = _model(path[:-1]) if path else None
    field = model.model_fields.get(path[-1]) if model else None
    return f"{path[-1]}: {field.description}" if field is not None and field.description else ""
