"""How many numbers a node will give, from its operands, before it is run: what would not fit in memory is not begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.blame import BROKEN
from ssmc.frontend.source.operands import text

Arrays = Sequence[Any]
Attrs = Mapping[str, Any]

MAX_RESULT = 1 << 27  # numbers that one value of a graph may hold, 1 GB of float64 (ours)
MAX_MOVED = 1 << 29  # where they are only put elsewhere, as the file has them: 2 GB of float32
MAX_FOUND = 1 << 24  # where it is found, or sorted, that takes several times the room and the time (ours)


FOUND = frozenset(["NonZero", "Unique"])


class TooLarge(UserError):
    """What would not fit in memory, or not end in time; no other reading of the file makes it smaller."""


def announced(kind: str, arrays: Arrays, attrs: Attrs) -> int:
    """Numbers in the largest thing that the node makes, at least; 0 where nothing tells, or where it cannot run."""
    sizes = [a.size for a in arrays if isinstance(a, np.ndarray)]
    if max(sizes, default=0) > MAX_MOVED:
        return max(sizes)
    told = TOLD.get(kind)
    if told is None and (len(sizes) < 2 or prod(sizes) <= MAX_RESULT):
        return 0
    try:
        return (told or _broadcast)(arrays, attrs)
    except BROKEN:  # the op itself says better what is wrong
        return 0


def _broadcast(arrays: Arrays, attrs: Attrs) -> int:
    return prod(np.broadcast_shapes(*(a.shape for a in arrays if a is not None)))


def _numbers(array: Any) -> list[int]:
    return [int(x) for x in np.asarray(array).real.reshape(-1)]


def _shape(slot: int) -> Callable[[Arrays, Attrs], int]:
    return lambda arrays, attrs: prod(_numbers(arrays[slot]))


def _expand(arrays: Arrays, attrs: Attrs) -> int:
    return prod(np.broadcast_shapes(arrays[0].shape, tuple(_numbers(arrays[1])))) if _shape(1)(arrays, attrs) else 0


def _tile(arrays: Arrays, attrs: Attrs) -> int:
    return int(arrays[0].size) * prod(_numbers(arrays[1]))


def _range(arrays: Arrays, attrs: Attrs) -> int:
    start, limit, delta = (float(a) for a in arrays)
    return max(0, int((limit - start) / delta))


def _one_hot(arrays: Arrays, attrs: Attrs) -> int:
    return int(arrays[0].size) * _numbers(arrays[1])[0]


def _pad(arrays: Arrays, attrs: Attrs) -> int:
    shape, pads = list(arrays[0].shape), _numbers(arrays[1])
    axes = range(len(shape)) if len(arrays) < 4 or arrays[3] is None else _numbers(arrays[3])
    for k, axis in enumerate(axes):
        shape[axis] += pads[k] + pads[k + len(pads) // 2]
    return prod(max(0, d) for d in shape)


def _resize(arrays: Arrays, attrs: Attrs) -> int:
    if len(arrays) > 3 and arrays[3] is not None:
        return prod(_numbers(arrays[3]))
    return int(arrays[0].size * np.prod(np.asarray(arrays[2], np.float64)))


def _matmul(arrays: Arrays, attrs: Attrs) -> int:
    a, b = (x.shape for x in arrays[:2])
    return int(prod(np.broadcast_shapes(a[:-2], b[:-2])) * prod(a[-2:-1]) * (b[-1] if len(b) > 1 else 1))


def _gather(arrays: Arrays, attrs: Attrs) -> int:
    return int(arrays[1].size * arrays[0].size // max(1, arrays[0].shape[attrs.get("axis", 0)]))


def _einsum(arrays: Arrays, attrs: Attrs) -> int:
    equation = text(attrs["equation"]).replace(" ", "")
    terms = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        sizes.update(zip(term, array.shape, strict=True))
    return prod(sizes[c] for c in (equation.split("->")[1] if "->" in equation else "".join(sizes)))


def _concat(arrays: Arrays, attrs: Attrs) -> int:
    return sum(int(a.size) for a in arrays)


def _padded(arrays: Arrays, attrs: Attrs) -> int:
    """What a convolution or a pooling pads its operand to."""
    shape, pads = list(arrays[0].shape[2:]), [int(p) for p in attrs.get("pads") or ()]
    half = len(pads) // 2
    return int(
        prod(arrays[0].shape[:2]) * prod(d + a + b for d, a, b in zip(shape, pads[:half], pads[half:], strict=True))
    )


def _top(arrays: Arrays, attrs: Attrs) -> int:
    count = _numbers(arrays[1])[0] if len(arrays) > 1 else int(attrs["k"])
    return int(arrays[0].size) // max(1, int(arrays[0].shape[attrs.get("axis", -1)])) * count


def _transposed(arrays: Arrays, attrs: Attrs) -> int:
    """What a transposed convolution adds its products up in, before it cuts off the padding."""
    (batch, _, *shape), (_, channels, *kernel) = arrays[0].shape, arrays[1].shape
    ones = [1] * len(shape)
    steps, gaps = attrs.get("strides") or ones, attrs.get("dilations") or ones
    whole = [(d - 1) * s + (k - 1) * g + 1 for d, s, k, g in zip(shape, steps, kernel, gaps, strict=True)]
    return int(batch) * int(channels) * int(attrs.get("group", 1)) * prod(int(w) for w in whole)


TOLD: dict[str, Callable[[Arrays, Attrs], int]] = {
    "ConstantOfShape": _shape(0),
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Resize": _resize,
    "Concat": _concat,
    "CenterCropPad": _shape(1),
    "AffineGrid": _shape(1),
    "HannWindow": _shape(0),
    "HammingWindow": _shape(0),
    "BlackmanWindow": _shape(0),
    "DFT": lambda arrays, attrs: _numbers(arrays[1])[0] if len(arrays) > 1 and arrays[1] is not None else 0,
    "RandomNormal": lambda arrays, attrs: prod(attrs["shape"]),
    "RandomUniform": lambda arrays, attrs: prod(attrs["shape"]),
    **dict.fromkeys(["Conv", "MaxPool", "AveragePool", "LpPool"], _padded),
    "ConvTranspose": _transposed,
    "TopK": _top,
    "NonZero": lambda arrays, attrs: int(np.count_nonzero(arrays[0])) * max(1, np.ndim(arrays[0])),
    "Unique": lambda arrays, attrs: int(np.size(arrays[0])),
    "MatMul": _matmul,
    "Gather": _gather,
    "Einsum": _einsum,
}
