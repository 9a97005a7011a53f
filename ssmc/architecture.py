"""Architecture files of any target: YAML read against the target's own schema, every mistake with its place."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from ssmc.diagnostics import UserError, near
from ssmc.text import read_text

MOST = (1 << 31) - 1  # of anything: products of two such counts still are machine integers
LONGEST = 1 << 20  # bytes of a file (ours)
LARGEST = 4000  # values of a file, those behind an anchor as often as they are named (ours)
FURTHEST = 1e30  # ours: no unit of a device asks for more


class Part(BaseModel):
    """A mapping of an architecture file: immutable; unknown keys, NaN, infinity, `true` for a number and numbers beyond
    all machines are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        if cls.model_fields[str(info.field_name)].annotation not in (int, float):
            return value
        if isinstance(value, bool):
            raise ValueError("input should be a number")
        if isinstance(value, str):  # YAML 1.1 reads `1e-12` as text; who writes an architecture file means a number
            try:
                value = float(value)
            except ValueError:
                return value
        if isinstance(value, int) and abs(value) > MOST:
            raise ValueError(f"input should be at most {MOST}")
        if isinstance(value, float) and math.isfinite(value) and value and not 1 / FURTHEST <= abs(value) <= FURTHEST:
            raise ValueError(f"input should be a number between {1 / FURTHEST:g} and {FURTHEST:g}")
        return value


Schema = TypeVar("Schema", bound=Part)


@dataclass(frozen=True)
class Key:
    """A key of an architecture file: `path` as in changes (`array.rows`), what it may be given, what it is where it is
    left out (None: it must not be), and what it means."""

    path: str
    values: str
    default: str | None
    meaning: str


def keys(schema: type[Part]) -> tuple[Key, ...]:
    """Every key of a target's architecture files, in the order of the schema."""
    tree = schema.model_json_schema()
    return tuple(_keys(tree, tree["$defs"], ""))


def _keys(section: Mapping[str, Any], sections: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    required = section.get("required", ())
    for name, told in section["properties"].items():
        if "$ref" in told:
            yield from _keys(sections[told["$ref"].rpartition("/")[2]], sections, f"{prefix}{name}.")
        else:
            default = None if name in required else json.dumps(told.get("default")).strip('"')
            yield Key(f"{prefix}{name}", _values(told), default, told.get("description", ""))


def _values(told: Mapping[str, Any]) -> str:
    """What a JSON schema takes, in words."""
    match told:
        case {"anyOf": [*kinds]}:
            return " or ".join(map(_values, kinds))
        case {"const": value}:
            return str(value)
        case {"enum": [*values]}:
            return " | ".join(map(str, values))
        case {"type": "array", "items": items}:
            return f"list of {_values(items)}"
        case {"type": "boolean"}:
            return "true | false"
    kind = {"integer": "whole number", "number": "number", "string": "text", "null": "null"}[told["type"]]
    bounds = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
    return " ".join([kind, *(f"{word} {told[bound]}" for bound, word in bounds if bound in told)])


def packaged(*prefixes: str) -> tuple[str, ...]:
    """Names of the packaged architecture files that start with one of `prefixes`."""
    entries = resources.files("samples").joinpath("arch").iterdir()
    names = (entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))
    return tuple(sorted(name for name in names if name.startswith(prefixes)))


_CHANGED = re.compile(r"(?P<source>[^{}\n]+)\{(?P<changes>[^{}]*)\}")
_COMMA = re.compile(r",(?![^\[]*\])")  # between changes: not within a list


def read(source: str, names: tuple[str, ...]) -> tuple[str, str]:
    """The text of a packaged architecture (one of `names`) or of a file, and what messages call it; with changes, as in
    `cim-large{crossbar.adc_bits=6,mesh.cores=16}`.

    Raises UserError where it is neither, cannot be read, or a change is none.
    """
    found = _CHANGED.fullmatch(source.strip())
    if found is None or os.path.isfile(source):  # of Path it raises where a name is too long for a file
        return _read(source, names)
    text, file = _read(found["source"].strip(), names)
    try:
        tree, value = _loaded(text, file)
    except UserError:
        return text, file  # `parse` says what is wrong with it
    if any(_given_twice(tree, ())):
        return text, file
    changed: set[str] = set()
    for change in filter(None, (part.strip() for part in _COMMA.split(found["changes"]))):
        path, equal, given = (part.strip() for part in change.partition("="))
        if path in changed:
            raise UserError(f"'{path}' is changed twice", where=source)
        changed.add(path)
        *parents, last = path.split(".")
        inside = value
        for key in parents:
            inside = inside.setdefault(key, {}) if isinstance(inside, dict) else None
        if not equal or not all(path.split(".")) or not isinstance(inside, dict):
            hint = "give SECTION.KEY=VALUE, as in 'cim-large{crossbar.adc_bits=6}'"
            raise UserError(f"'{change}' is not a change to an architecture", where=source, hint=hint)
        try:
            inside[last] = _loaded(given, source)[1]
        except UserError:
            raise UserError(
                f"'{given}' is not a value", where=source, hint="give a number, a word, a [list], true or false"
            ) from None
    if isinstance(value, dict) and found["changes"].strip():
        value["name"] = f"{value.get('name', file)}{{{found['changes'].strip()}}}"
    return yaml.safe_dump(value, sort_keys=False, width=120), source


def _read(source: str, names: tuple[str, ...]) -> tuple[str, str]:
    """Without changes."""
    if source in names:
        file = f"{source}.yaml"
        return resources.files("samples").joinpath("arch", file).read_text(encoding="utf-8"), file
    try:
        return read_text(source, LONGEST), source
    except FileNotFoundError:
        what = f"no architecture is called '{source}' and there is no such file"
        if source in packaged(""):
            what = f"the architecture '{source}' is one of another target"
        hint = f"{near(source, names)} packaged: {', '.join(names)}; or the path of a YAML file"
        if source.partition("{")[0].strip() in names:
            what = f"the changes in '{source}' are not within one pair of braces"
            hint = "give NAME{SECTION.KEY=VALUE,...}, as in 'cim-large{crossbar.adc_bits=6}', in quotes"
        raise UserError(what, hint=hint.lstrip()) from None
    except UnicodeDecodeError as error:
        raise UserError("the architecture file is not text", where=source, why=str(error)) from None
    except OSError as error:
        raise UserError("the architecture file cannot be read", where=source, why=error.strerror or "") from None


def _loaded(text: str, file: str) -> tuple[Any, Any]:
    """The nodes and the value of YAML text. Raises UserError where it is none, or more than a file says."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None and _values_of(tree, {}) > LARGEST:
            why = f"it has more than {LARGEST} values, those behind an anchor (&name) as often as they are named"
            raise UserError("this is too much for an architecture file", where=file, why=why)
        return tree, yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        why = str(getattr(error, "problem", None) or getattr(error, "context", None) or error)
        raise UserError("the architecture file is not YAML", where=where, why=why) from None
    except RecursionError:
        hint = "a file has sections of keys, and lists of numbers or words"
        raise UserError("the architecture file is nested too deep", where=file, hint=hint) from None
    except (ValueError, KeyError, OverflowError):
        where, given = next(((_place(file, node), node.value) for node in _scalars(tree) if _is_none(node)), (file, ""))
        what = f"'{given[:40]}' cannot be read as the number, date or truth value that it looks like"
        raise UserError(what, where=where, hint="put text between quotes") from None


def _values_of(node: Any, known: dict[int, int]) -> int:
    """How many values a node holds, itself included; of one that holds itself, and of more, more than `LARGEST`."""
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # while it is counted: what holds itself has no end
        parts = node.value if isinstance(node.value, list) else []
        inner = [part for each in parts for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_values_of(part, known) for part in inner)
    return known[id(node)]


def _scalars(node: Any) -> Iterator[Any]:
    if not isinstance(node.value, list):
        yield node
        return
    for each in node.value:
        for part in each if isinstance(each, tuple) else (each,):
            yield from _scalars(part)


def _is_none(node: Any) -> bool:
    """Is a scalar of a kind whose form it does not have?"""
    try:
        yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, KeyError, OverflowError):
        return True
    return False


def parse(schema: type[Schema], text: str, file: str) -> Schema:
    """An architecture from YAML text; `file` is for messages.

    Raises UserError with file:line:column for text that is not YAML, and for every key that is unknown, missing, given
    twice or out of range.
    """
    tree, value = _loaded(text, file)
    twice = list(_given_twice(tree, ()))
    if not isinstance(value, Mapping):
        hint = "start from a packaged one: `ssmc targets NAME` prints it"
        raise UserError("an architecture file is a mapping of sections", where=f"{file}:1:1", hint=hint)
    problems = [
        UserError(f"the key '{'.'.join(path)}' is given twice", where=_place(file, again), hint=f"first: line {line}")
        for path, again, line in twice
    ]
    try:
        found = schema.model_validate(value)
    except ValidationError as error:
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] == "missing")
        problems += [_problem(schema, e, tree, file) for e in errors]
    if problems:
        first = problems[0]
        if len(problems) > 1:
            first.why = "\n       ".join(str(p).splitlines()[0] for p in problems[1:])
        raise first
    return found


def text_of(arch: Part) -> str:
    """Canonical YAML of an architecture."""
    return yaml.safe_dump(arch.model_dump(mode="json"), sort_keys=False, width=120)


def _given_twice(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, int]]:
    """Keys that stand twice in one mapping: path, the second place, the first's line."""
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in lines:
            yield (*path, name), key, lines[name]
        lines.setdefault(name, key.start_mark.line + 1)
        yield from _given_twice(value, (*path, name))


def _place(file: str, node: Any) -> str:
    """File, line and column; of a text with changes in braces, which nobody has seen, the name alone."""
    return file if file.endswith("}") else f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _problem(schema: type[Part], error: Any, tree: Any, file: str) -> UserError:
    path = tuple(error["loc"])
    node = tree
    for depth, key in enumerate(path):
        found = _child(node, key, at_key=depth == len(path) - 1 and error["type"] == "extra_forbidden")
        if found is None:
            break
        node = found
    key = ".".join(map(str, path)) or "the architecture"
    match error["type"]:
        case "extra_forbidden":
            inside = _model(schema, path[:-1])
            known = [] if inside is None else list(inside.model_fields)
            hint = near(str(path[-1]), known) or f"the keys here are: {', '.join(known)}"
            return UserError(f"unknown key '{key}'", where=_place(file, node), hint=hint)
        case "missing":
            return UserError(f"the key '{key}' is missing", where=_place(file, node), hint=_meaning(schema, path))
    section = _model(schema, path) if error["type"] in ("model_type", "model_attributes_type") else None
    if section is not None:
        hint = f"its keys are: {', '.join(section.model_fields)}"
        return UserError(f"'{key}' is a section; given {error['input']!r}", where=_place(file, node), hint=hint)
    given = f"; given {error['input']!r}" if not isinstance(error["input"], Mapping) else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    what = f"'{key}': {message[:1].lower()}{message[1:]}{given}"
    return UserError(what, where=_place(file, node), hint=_meaning(schema, path))


def _child(node: Any, key: Any, *, at_key: bool) -> Any:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name if at_key else value
    return None


def _model(schema: type[Part], path: tuple[Any, ...]) -> type[BaseModel] | None:
    model: Any = schema
    for key in path:
        field = model.model_fields.get(key)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        model = field.annotation
    found: type[BaseModel] = model
    return found


def _meaning(schema: type[Part], path: tuple[Any, ...]) -> str:
    """What a key means, for the hint of an error; a key within a list has its list's meaning."""
    names = [key for key in path if isinstance(key, str)]
    model = _model(schema, tuple(names[:-1])) if names else None
    field = model.model_fields.get(names[-1]) if model else None
    return f"{names[-1]}: {field.description}" if field is not None and field.description else ""
