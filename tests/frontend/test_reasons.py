"""Reasons of refusals: their words are for the user, and what is decided by them goes by their kinds."""

from __future__ import annotations

import ast
from pathlib import Path

import ssmc.frontend
from ssmc.frontend.findings import NOT_FEATURES, refusal
from ssmc.frontend.graph.flow import TimeMixing
from ssmc.frontend.reasons import Kind

WORDS = frozenset(["reason", "text", "what", "why", "hint", "where"])  # attributes that hold words of a message


def _reads_words(node: ast.expr) -> bool:
    """Is it the message of something, or `str` of it?"""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "str"
    return isinstance(node, ast.Attribute) and node.attr in WORDS


def _decides_by_words(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        return any(_reads_words(side) for side in (node.left, *node.comparators))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("startswith", "endswith", "find", "count") and _reads_words(node.func.value)
    return False


def test_nothing_is_decided_by_the_words_of_a_message() -> None:
    files = sorted(Path(ssmc.frontend.__path__[0]).rglob("*.py"))
    assert len(files) > 100
    found = [
        f"{path.name}:{node.lineno}"  # type: ignore[attr-defined]
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if _decides_by_words(node)
    ]
    assert not found


def test_a_reason_keeps_its_kind_in_longer_words_and_through_exceptions() -> None:
    longer = TimeMixing(NOT_FEATURES.within(f"{NOT_FEATURES}, in a longer sentence"))
    assert str(longer) == "its channels are not features, in a longer sentence"
    told = refusal("n", "Conv", longer.reason)
    assert Kind.NOT_FEATURES in told.kind and Kind.UNLIKE not in told.kind
    assert refusal("n", "Conv", "its channels are not features").kind is Kind.PLAIN
