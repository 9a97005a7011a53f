"""Reasons of refusals: their words are for the user, and what is decided by them goes by their kinds."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import ssmc.frontend
from ssmc.frontend import load_model
from ssmc.frontend.findings import NOT_FEATURES, refusal
from ssmc.frontend.graph.flow import TimeMixing
from ssmc.frontend.reasons import Kind
from tests.frontend.checks import refused
from tests.frontend.net import Net, save

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


def smoothed(net: Net, x: str, steps: int, axis: int) -> str:
    """Step by step along an axis of x, whose last axis has three entries."""
    state, found = "", []
    for k in range(steps):
        u = net.op("Gather", x, net.const(np.int64(k)), axis=axis)
        state = net.op("Add", net.op("Mul", net.const(np.array([0.5, 0.7, 0.9])), state), u) if state else u
        found.append(net.op("Unsqueeze", state, net.ints(axis)))
    return str(net.op("Concat", *found, axis=axis))


def test_an_axis_that_is_not_the_usual_one_is_told(tmp_path: Path) -> None:
    for axis, told in ((0, True), (1, False)):
        net = Net()
        x = net.input([8, 2, 3] if axis == 0 else [2, 8, 3], name="x")
        model = load_model(
            save(net.model([(smoothed(net, x, 8, axis), [8, 2, 3] if axis == 0 else [2, 8, 3])]), tmp_path)
        )
        note = "axis 0 of 'x' is taken for time, as along axis 1 nothing holds"
        assert (note in model.notes) == told


@pytest.mark.parametrize("steps,told", [("n", False), (8, True)])
def test_the_one_axis_without_a_size_is_time(steps: int | str, told: bool, tmp_path: Path) -> None:
    net = Net()
    x = net.input([steps, 3], name="x")
    y = net.op("CumSum", x, net.const(np.int64(0)))
    model = load_model(save(net.model([(y, [steps, 3])]), tmp_path))
    assert any("is taken for time" in note for note in model.notes) == told


def test_streams_of_different_rates(tmp_path: Path) -> None:
    """Eight steps of one input, pooled by four, beside two steps of the other."""
    net = Net()
    x, z = net.input([2, 8, 3], name="fast"), net.input([2, 2, 3], name="slow")
    windows = net.op("Reshape", smoothed(net, x, 8, 1), net.ints(2, 2, 4, 3))
    y = net.op("Add", net.op("ReduceMean", windows, axes=[2], keepdims=0), z)
    path = save(net.model([(y, [2, 2, 3])]), tmp_path)
    refused(path, "its inputs are not of one length", "the 8 steps of 'fast'", "'slow' has no axis of so many")
