"""Streams that are overwritten step by step, or stretch by stretch, and read again: held against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.test_reroll import lifted, scans
from tests.frontend.unrolled import Writer

LENGTH, WIDTH = 9, 3


def gates(w: Writer) -> tuple[str, str]:
    """A decay for every step, and what every step adds."""
    rng = np.random.default_rng(2)
    decay, drive = (w.op("MatMul", "x", w.const(rng.standard_normal((WIDTH, WIDTH)))) for _ in range(2))
    return w.op("Sigmoid", decay), drive


def write(w: Writer, result: str, t: int, value: str, op: str) -> str:
    """`result[:, t] = value`."""
    if op == "ScatterElements":
        new = w.op("Unsqueeze", value, w.const([1]))
        return w.op(op, result, w.const(np.full((2, 1, WIDTH), t)), new, axis=1)
    grid = np.array([[[b, t]] for b in range(2)])
    new = w.op("Reshape", w.op("Expand", value, w.const([2, WIDTH])), w.const([2, 1, WIDTH]))
    return w.op(op, result, w.const(grid), new)


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("start", [None, 0.0, 1.5])
def test_a_step_is_read_back_from_where_it_was_written(
    tmp_path: Path, op: str, keep: bool, start: float | None
) -> None:
    """y[:, t] = a[:, t] * y[:, t - 1] + b[:, t], from nothing, zeros or a trained state."""
    w = Writer()
    decay, drive = gates(w)
    result = w.const(np.zeros((2, LENGTH, WIDTH)))
    for t in range(LENGTH):
        a, b = (w.op("Gather", part, w.const(t), axis=1) for part in (decay, drive))
        before = None if start is None else w.const(np.arange(WIDTH) * start)
        if t and keep:
            part = w.op("Slice", result, w.const([t - 1]), w.const([t]), w.const([1]))
            before = w.op("Squeeze", part, w.const([1]))
        elif t:
            before = w.op("Gather", result, w.const(t - 1), axis=1)
        value = b if before is None else w.op("Add", w.op("Mul", a, before), b)
        result = write(w, result, t, value, op)
    path = w.save(tmp_path / "m.onnx", {"x": (2, LENGTH, WIDTH)}, {"y": result}, {"y": 3})
    assert scans(path) == 1
    (system,) = lifted(path, x=(2, LENGTH, WIDTH)).systems
    assert system.kind == "selective" and system.disguise == "unrolled steps"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("start", [False, True])
def test_a_parallel_scan_in_place(tmp_path: Path, turned: bool, start: bool) -> None:
    """Hillis and Steele's, each level written over the last; `turned`: with time in front, as places along it want."""
    w = Writer()
    decay, drive = gates(w)
    if start:
        first = [w.op("Gather", part, w.const(0), axis=1) for part in (decay, drive)]
        value = w.op("Add", first[1], w.op("Mul", first[0], w.const([0.5, -2.0, 1.0])))
        drive = write(w, drive, 0, value, "ScatterElements")
    span = 1
    while span < LENGTH:

        def part(value: str, begin: int, end: int) -> str:
            return w.op("Slice", value, w.const([begin]), w.const([end]), w.const([1]))

        late, early = (part(decay, a, b) for a, b in ((span, LENGTH), (0, LENGTH - span)))
        added = w.op("Add", part(drive, span, LENGTH), w.op("Mul", late, part(drive, 0, LENGTH - span)))
        levels = ((drive, added), (decay, w.op("Mul", late, early)))
        drive, decay = (_overwritten(w, old, new, span, turned) for old, new in levels)
        span *= 2
    path = w.save(tmp_path / "m.onnx", {"x": (2, LENGTH, WIDTH)}, {"y": drive}, {"y": 3})
    (system,) = lifted(path, x=(2, LENGTH, WIDTH)).systems
    assert system.kind == "selective" and system.disguise == "associative scan"


def _overwritten(w: Writer, old: str, new: str, span: int, turned: bool) -> str:
    """`old` with `new` from step `span` on."""
    if not turned:
        grid = np.array([[[b, t] for t in range(span, LENGTH)] for b in range(2)])
        return w.op("ScatterND", old, w.const(grid), new)
    old, new = (w.op("Transpose", part, perm=[1, 0, 2]) for part in (old, new))
    written = w.op("ScatterND", old, w.const(np.arange(span, LENGTH)[:, None]), new)
    return w.op("Transpose", written, perm=[1, 0, 2])
