"""Tables over the steps that are other ones in a longer sequence: what they follow besides the step's number.

The weights of a sum that fade from the last step backwards, `a^(T-1-k)`, are a table read from the end; places within
the sequence, `k/T` or `linspace(-1, 1, T)`, and weights that add up to one are a table over the number of steps, or
over its own sum, which are known after the last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssmc.frontend.graph.builder import Builder, Operand
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

NEAR = 1e-9  # relative: what float64 leaves of the same number, computed at two lengths
DIVISORS = ("", "steps", "gaps", "sum")


@dataclass(frozen=True)
class Law:
    """A table as a function of the length T: `offset + total * row / divisor`, rows counted from the last step where
    `backwards`. The divisor is 1, T, T - 1 or the sum of the rows.

    `rows` (steps, *features), `offset` and `total` (*features).
    """

    rows: Array
    backwards: bool
    divisor: str
    offset: Array
    total: Array


def law_of(short: Array, long: Array) -> Law | None:
    """What a table (steps, *features) at two lengths follows; None where it is nothing known."""
    if len(short) < 2 or long.shape[1:] != short.shape[1:] or len(long) <= len(short):
        return None
    laws = [
        law
        for divisor in DIVISORS
        for backwards in (False, True)
        for shifted in (False, True)
        if (law := _tried(short, long, divisor, backwards, shifted)) is not None
    ]
    if laws and laws[0].divisor == "sum":  # rows that fade rather than grow, where both are true
        return min(laws, key=lambda law: np.abs(law.rows).max())
    return laws[0] if laws else None


def _tried(short: Array, long: Array, divisor: str, backwards: bool, shifted: bool) -> Law | None:
    ordered = [t[::-1] if backwards else t for t in (short, long)]
    none = np.zeros(short.shape[1:])
    if divisor in ("", "sum") and shifted:
        return None
    offset, total = ordered[0][0] if shifted else none, none + 1.0
    rows = [_rows(t - offset, divisor) for t in ordered]
    if rows[0] is None or rows[1] is None or not _same(rows[0], rows[1][: len(short)]):
        return None
    if divisor == "sum":
        total = short.sum(axis=0)
        if not _same(total, long.sum(axis=0)):
            return None
    return Law(rows[1], backwards, divisor, offset, total)


def _rows(table: Array, divisor: str) -> Array | None:
    match divisor:
        case "steps":
            return table * len(table)
        case "gaps":
            return table * (len(table) - 1)
        case "sum":
            whole = np.flatnonzero((table.reshape(len(table), -1) != 0).all(axis=1))
            if not len(whole) or whole[0] > 1:
                return None
            with np.errstate(over="ignore"):
                rows = table / table[whole[0]]
            return rows if np.isfinite(rows).all() else None
    return table


def _same(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max(initial=0.0) <= NEAR * np.abs(a).max(initial=0.0))


def followed_by(builder: Builder, counter: Value, law: Law) -> tuple[Value, Operand]:
    """The table that is looked up, and the stream, flat, that follows the law: `counter` gives the steps' numbers."""
    flat = builder.add("embed", [counter], table=Tensor(law.rows.reshape(len(law.rows), -1)))
    stream: Operand = builder.reverse(flat) if law.backwards else flat
    if law.divisor:
        total = law.total.reshape(-1)
        stream = builder.binary("mul", builder.binary("div", stream, _divisor(builder, flat, law.divisor)), total)
    return flat, builder.binary("add", stream, law.offset.reshape(-1))


def _divisor(builder: Builder, flat: Value, divisor: str) -> Operand:
    if divisor == "sum":
        return builder.add("pool", [flat], kind="sum")
    steps = builder.add("pool", [builder.stream(np.ones(()), flat)], kind="sum")
    if divisor == "steps":
        return steps
    return builder.binary("max", builder.binary("sub", steps, np.ones(())), np.ones(()))  # a single step has no gap
