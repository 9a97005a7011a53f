"""The least that a whole number can be, as the nodes tell that make it: does an index count from the end?

Where lengths are dynamic, a step before the last is known after the last one only, in another run through the sequence.
So there an integer input that one is taken from is read as a count, as of the steps of a sequence, and no count is
negative: `proving` tells in a note that the program is another than the file where one is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor, inf
from typing import Any

import numpy as np

from ssmc.frontend.rules.context import Surroundings
from ssmc.frontend.source.listing import Call
from ssmc.frontend.source.operands import text
from ssmc.ir.graph import Value

DEPTH = 24  # nodes that are looked behind (ours)
COUNTS = frozenset(["ArgMax", "ArgMin", "NonZero", "Shape", "Size", "Abs", "Relu", "Sigmoid", "Softplus", "Exp"])
TRUTHS = frozenset(
    ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf"]
)
SAME = frozenset(
    [
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Tile", "Slice", "Gather"),
        *("GatherElements", "GatherND", "ReduceMax", "ReduceMin", "ReduceMean", "Cast"),
    ]
)


def least(translator: Surroundings, value: Value | None) -> float:
    """A number that no element of the value is below, -inf where nothing tells one."""
    return _Search(translator).below(value, DEPTH)


@dataclass(frozen=True)
class _Search:
    """What is known so far of the values of one listing; integer inputs may be `counts`."""

    translator: Surroundings
    counts: bool = False
    known: dict[Value, float] = field(default_factory=dict)

    def below(self, value: Value | None, depth: int) -> float:
        if value is None or depth == 0:
            return -inf
        if value not in self.known:
            self.known[value] = self._found(value, depth)
        return self.known[value]

    def _found(self, value: Value, depth: int) -> float:
        if (array := self.constant(value)) is not None:
            return float(array.min())
        call = self.translator.listing.producer.get(value)
        if call is None:
            given = np.asarray(self.translator.samples.at(0, [value])[value])
            return 0.0 if given.dtype.kind in ("ubi" if self.counts else "ub") else -inf
        if call.kind in COUNTS | TRUTHS:
            return 0.0
        lows = [self.below(v, depth - 1) for v in call.operands]
        if call.kind in SAME:
            return floor(lows[0]) if np.isfinite(lows[0]) else lows[0]
        rule = RULES.get(call.kind)
        return -inf if rule is None else rule(self, call, lows)

    def less(self, value: Value | None, low: float, taken: float) -> float:
        """What is left of a value, which no number below `low` is, without so much."""
        if low == -inf and taken >= 1 and self.translator.dynamic and not self.counts:
            low = _Search(self.translator, counts=True).below(value, DEPTH)
        return low - taken

    def constant(self, value: Value | None) -> Any:
        """The array of a constant of the file: what is made of shapes may be another at another length."""
        array = None if value is None else self.translator.listing.constants.get(value)
        real = array is not None and np.size(array) and np.asarray(array).dtype.kind in "biuf"
        return np.asarray(array) if real else None


def _positive(search: _Search, call: Call, lows: list[float]) -> float:
    """Of sums and products: not negative where no operand is."""
    return 0.0 if min(lows) >= 0 else -inf


def _reduced(search: _Search, call: Call, lows: list[float]) -> float:
    return 0.0 if lows[0] >= 0 else -inf


def _less(search: _Search, call: Call, lows: list[float]) -> float:
    taken = search.constant(call.operands[1])
    return -inf if taken is None else search.less(call.operands[0], lows[0], float(taken.max()))


def _more(search: _Search, call: Call, lows: list[float]) -> float:
    for value, low, added in zip(call.operands, lows, reversed(lows), strict=True):
        if low == -inf < added < 0:
            return search.less(value, low, -added)
    return lows[0] + lows[1]


def _clipped(search: _Search, call: Call, lows: list[float]) -> float:
    given = {"min": -inf, "max": inf} | {k: float(v) for k, v in call.attrs.items()}
    if len(call.operands) > 1 and call.operands[1] is not None:
        given["min"] = lows[1]
    if len(call.operands) > 2 and call.operands[2] is not None:
        given["max"] = lows[2]
    return min(max(lows[0], given["min"]), given["max"])


def _rest(search: _Search, call: Call, lows: list[float]) -> float:
    """Mod has the sign of what it divides by, with `fmod` of what it divides."""
    return 0.0 if lows[0 if call.attrs.get("fmod") else 1] >= 0 else -inf


def _scattered(search: _Search, call: Call, lows: list[float]) -> float:
    return min(lows[0], lows[2]) if text(call.attrs.get("reduction", "none")) == "none" else -inf


RULES: dict[str, Callable[[_Search, Call, list[float]], float]] = {
    "Add": _more,
    "Sub": _less,
    **dict.fromkeys(["Mul", "Div", "Sum"], _positive),
    **dict.fromkeys(["ReduceSum", "ReduceProd", "CumSum"], _reduced),
    **dict.fromkeys(["Min", "Concat"], lambda search, call, lows: min(lows)),
    "Max": lambda search, call, lows: max(lows),
    "Where": lambda search, call, lows: min(lows[1:]),
    "Clip": _clipped,
    "Mod": _rest,
    **dict.fromkeys(["ScatterElements", "ScatterND"], _scattered),
}
