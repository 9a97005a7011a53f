"""The vector unit's instructions. Arrays are (batch or 1, steps or 1, words)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backends.cim.program.decode import Item
from backends.cim.simulate.core import Core, Trap
from ssmc.ir.functions import BINARY, REDUCE, UNARY
from ssmc.ir.op import Array


def _unary(core: Core, code: Item) -> None:
    x = np.ascontiguousarray(core.read(code.integer("src"), code.integer("words")))
    core.write(code.integer("dst"), np.asarray(UNARY[code.text("fn")](x)))


def _cycled(core: Core, code: Item, name: str) -> Array:
    """An operand of `binary`, spread over the result's words."""
    total = code.integer("words")
    words = code.integer(f"{name}_words") or total
    repeat = code.integer(f"{name}_repeat")
    x = core.read(code.integer(name), words)
    if (words, repeat) == (total, 1):
        return x
    return x[:, :, (np.arange(total) // repeat) % words]


def _binary(core: Core, code: Item) -> None:
    a, b = _cycled(core, code, "a"), _cycled(core, code, "b")
    core.write(code.integer("dst"), np.asarray(BINARY[code.text("fn")](a, b)))


def _gate(core: Core, code: Item) -> None:
    a, b = (core.read(code.integer(name), code.integer("words")) for name in "ab")
    core.write(code.integer("dst"), a * UNARY[code.text("fn")](np.ascontiguousarray(b)))


def _select(core: Core, code: Item) -> None:
    condition, a, b = (core.read(code.integer(name), code.integer("words")) for name in ("condition", "a", "b"))
    core.write(code.integer("dst"), np.where(condition != 0, a, b))


def _norm(core: Core, code: Item) -> None:
    """Layer norm (arXiv 1607.06450) or RMS norm (arXiv 1910.07467)."""
    features, vectors, groups = (code.integer(name) for name in ("features", "vectors", "groups"))
    x = core.read(code.integer("src"), features * vectors)
    grouped = np.ascontiguousarray(x).reshape(*x.shape[:2], vectors, groups, features // groups)
    if code.text("kind") == "layer":
        grouped = grouped - grouped.mean(-1, keepdims=True)
    y = grouped / np.sqrt(np.mean(grouped**2, -1, keepdims=True) + code.real("epsilon"))
    y = y.reshape(*x.shape[:2], vectors, features)
    if code.text("scale"):
        y = y * core.data[code.text("scale")]
    if code.text("shift"):
        y = y + core.data[code.text("shift")]
    core.write(code.integer("dst"), y.reshape(x.shape))


def _softmax(core: Core, code: Item) -> None:
    features, vectors = code.integer("features"), code.integer("vectors")
    x = core.read(code.integer("src"), features * vectors)
    rows = np.ascontiguousarray(x).reshape(*x.shape[:2], vectors, features)
    shifted = rows - rows.max(-1, keepdims=True)
    size = np.exp(shifted)
    total = size.sum(-1, keepdims=True)
    y = shifted - np.log(total) if code.flag("log") else size / total
    core.write(code.integer("dst"), y.reshape(x.shape))


def _reduce(core: Core, code: Item) -> None:
    outer, words, inner = (code.integer(name) for name in ("outer", "words", "inner"))
    x = core.read(code.integer("src"), outer * words * inner)
    split = np.ascontiguousarray(x).reshape(*x.shape[:2], outer, words, inner)
    if inner > 1:  # one order of adding, whatever the number of steps
        split = np.ascontiguousarray(split.swapaxes(3, 4))
        y = REDUCE[code.text("fn")](split, axis=4)
    else:
        y = REDUCE[code.text("fn")](split[..., 0], axis=3)
    core.write(code.integer("dst"), y.reshape(*x.shape[:2], outer * inner))


def _contract(core: Core, code: Item) -> None:
    groups, rows, inner, cols = (code.integer(name) for name in ("groups", "rows", "inner", "cols"))
    a = core.read(code.integer("a"), groups * rows * inner)
    b = core.read(code.integer("b"), groups * inner * cols)
    left = np.ascontiguousarray(a).reshape(*a.shape[:2], groups, rows, inner, 1)
    right = np.ascontiguousarray(b).reshape(*b.shape[:2], groups, 1, inner, cols)
    outer = np.broadcast_shapes(a.shape[:2], b.shape[:2])
    y = np.zeros((*outer, groups, rows, cols))
    for i in range(inner):  # elementwise, so that a step's rounding does not depend on the steps beside it
        y += left[..., i, :] * right[..., i, :]
    core.write(code.integer("dst"), y.reshape(*outer, groups * rows * cols))


def _load(core: Core, code: Item) -> None:
    core.write(code.integer("dst"), np.asarray(core.data[code.text("data")], np.float64).reshape(1, 1, -1))


def _fill(core: Core, code: Item) -> None:
    core.write(code.integer("dst"), np.full((1, 1, code.integer("words")), code.real("value")))


def _copy(core: Core, code: Item) -> None:
    core.write(code.integer("dst"), core.read(code.integer("src"), code.integer("words")))


def _gather(core: Core, code: Item) -> None:
    x, index = core.read(code.integer("src"), code.integer("span")), core.data[code.text("index")]
    if index.size and not 0 <= index.min() <= index.max() < x.shape[2]:
        raise Trap(
            f"an index of {index.min()}..{index.max()} is outside of {x.shape[2]} words",
            hint="raise 'span', or change the constant",
        )
    core.write(code.integer("dst"), x[:, :, index])


def _embed(core: Core, code: Item) -> None:
    table = core.data[code.text("table")]
    x = core.read(code.integer("src"), code.integer("count"))
    rows = x.astype(np.int64)
    if rows.size and not -len(table) <= rows.min() <= rows.max() < len(table):
        row = rows.min() if rows.min() < -len(table) else rows.max()
        raise Trap(
            f"row {row} is outside of a table of {len(table)} rows",
            hint=f"give whole numbers from {-len(table)} to {len(table) - 1} in the input that is looked up",
        )
    core.write(code.integer("dst"), table[rows].reshape(*x.shape[:2], -1))


UNITS: dict[str, Callable[[Core, Item], None]] = {
    "unary": _unary,
    "binary": _binary,
    "gate": _gate,
    "select": _select,
    "norm": _norm,
    "softmax": _softmax,
    "reduce": _reduce,
    "contract": _contract,
    "load": _load,
    "fill": _fill,
    "copy": _copy,
    "gather": _gather,
    "embed": _embed,
}
