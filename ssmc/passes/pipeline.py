"""Pipelines as text: `discretize,share-decays{levels=6},tile` and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, get_type_hints

from ssmc.diagnostics import UserError, near_or_all, pointed
from ssmc.passes.base import Pass
from ssmc.passes.registry import pass_classes

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
WHOLE = "default"  # the word for a target's own pipeline
WORDS = {"true": True, "false": False, "none": None, "inf": float("inf")}
EXPECTED = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "COMMA": "','",
    "EQUAL": "'='",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "$END": "the end",
}


def parse_pipeline(text: str, own: str | None = None) -> tuple[Pass, ...]:
    """The passes that `text` names, with their options; `default` stands for the pipeline `own`, if that is given.

    Raises UserError with column and caret for a mistake in the text, an unknown pass or option, or a value that
    does not fit the option's type.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        at = min(error.pos_in_stream or 0, len(text)) if not _at_end(error) else len(text)
        allowed: Iterable[str] = ()
        if isinstance(error, UnexpectedToken):
            allowed = error.accepts or error.expected
        elif isinstance(error, UnexpectedCharacters):
            allowed = error.allowed or ()
        expected = ", ".join(sorted(EXPECTED.get(name, name) for name in allowed))
        what = "the pipeline ends too early" if at == len(text) else f"unexpected '{text[at]}'"
        raise _error(text, at, 1, what, why=f"expected {expected}" if expected else "") from None
    entries: list[Any] = [entry for entry in tree.children if entry is not None]
    if own is not None:
        _require_once(text, entries)
    return tuple(pass_ for entry in entries for pass_ in _passes(text, entry, own))


def show_pipeline(passes: Sequence[Pass]) -> str:
    """The text of a pipeline; options that hold their default are left out. `parse_pipeline` gives it back."""
    return ",".join(show_pass(pass_) for pass_ in passes)


def show_pass(pass_: Pass) -> str:
    """A pass as a pipeline writes it."""
    told = [f"{name}={_show(value)}" for name, value in _told(pass_)]
    return f"{pass_.name}{{{','.join(told)}}}" if told else pass_.name


@cache
def _grammar() -> Lark:
    from lark import Lark

    grammar = files("ssmc.passes").joinpath("pipeline.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=False)


def _at_end(error: Any) -> bool:
    return getattr(getattr(error, "token", None), "type", "") == "$END"


def _error(text: str, at: int, width: int, what: str, *, why: str = "", hint: str = "") -> UserError:
    line = text.count("\n", 0, at)
    start = text.rfind("\n", 0, at) + 1
    source = text[start:].partition("\n")[0]
    place = f"pipeline:{line + 1}:{at - start + 1}"
    return UserError(f"{what}\n{pointed(source, at - start, width)}", where=place, why=why, hint=hint)


def _require_once(text: str, entries: Sequence[Tree[Token]]) -> None:
    """The target's own pipeline stands once: what it has rounded and placed would be again."""
    for entry in [entry for entry in entries if entry.children[0] == WHOLE][1:]:
        at, label = _place(entry.children[0])
        hint = "leave one of them out; passes before and behind it are options on the command line"
        raise _error(text, at, len(label), f"'{WHOLE}' stands there twice", why="it ends in a program", hint=hint)


def _passes(text: str, entry: Tree[Token], own: str | None) -> tuple[Pass, ...]:
    name, *options = entry.children
    return parse_pipeline(own) if name == WHOLE and own is not None and not options else (_entry(text, entry),)


def _entry(text: str, entry: Tree[Token]) -> Pass:
    name, *options = entry.children
    at, label = _place(name)
    known = pass_classes()
    if label not in known:
        hint = near_or_all(label, [*known, WHOLE])
        if label == WHOLE:
            hint = f"'{WHOLE}' stands for a target's own pipeline, where one is compiled for; it takes no options"
        raise _error(text, at, len(label), f"no pass is called '{label}'", hint=hint)
    pass_class = known[label]
    types = get_type_hints(pass_class)
    names = [field.name for field in fields(pass_class) if field.init]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for option in options:
        key, value = option.children  # type: ignore[union-attr]
        spot, word = _place(key)
        if word not in names:
            what = f"the pass '{label}' has no option '{word}'"
            raise _error(text, spot, len(word), what, hint=near_or_all(word, names))
        if word in given:
            raise _error(text, spot, len(word), f"the option '{word}' is given twice")
        given[word] = _value(text, value.children[0], word, types[word])  # type: ignore[union-attr]
    missing = [f.name for f in fields(pass_class) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [word for word in missing if word not in given]
    if missing:
        what = f"the pass '{label}' needs the option '{missing[0]}'"
        raise _error(text, at, len(label), what, hint=f"write {label}{{{missing[0]}=...}}")
    try:
        return pass_class(**given)
    except (UserError, ValueError) as error:
        raise _error(text, at, len(label), f"the options of '{label}' do not fit", why=str(error)) from None


def _place(token: Any) -> tuple[int, str]:
    return int(token.start_pos), str(token)


def _value(text: str, token: Any, name: str, kind: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    at, raw = _place(token)
    value = _read(token.type, raw)
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        why = "; ".join(dict.fromkeys(problem["msg"] for problem in error.errors()))
        what = f"the option '{name}' cannot be {raw}"
        raise _error(text, at, len(raw), what, why=why[:1].lower() + why[1:]) from None


def _read(kind: str, raw: str) -> Any:
    if kind == "STRING":
        return json.loads(raw)
    if kind == "NUMBER":
        return int(raw) if re.fullmatch(r"[+-]?[0-9]+", raw) else float(raw)
    return WORDS.get(raw, raw)


def _told(pass_: Pass) -> Iterator[tuple[str, Any]]:
    for field in fields(pass_):  # type: ignore[arg-type]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(pass_, field.name)
        if field.init and (type(value) is not type(default) or value != default):
            yield field.name, value


def _show(value: Any) -> str:
    for word, meaning in WORDS.items():
        if type(value) is type(meaning) and value == meaning:
            return word
    if isinstance(value, str):
        return value if WORD.fullmatch(value) and value not in WORDS else json.dumps(value)
    return repr(value)
