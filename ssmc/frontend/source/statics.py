"""What a graph computes from constants alone: worked out once, and what is large on the way never held whole.

A kernel that the file computes comes from tables (channels, modes, time) of gigabytes. Between the rates that the
tables are made of and the sum over the modes stand elementwise ops, so any part of a table can be had without the
rest: some channels to add up the kernel piece by piece, some steps to see how a mode goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.evaluate import MOVES, run_call
from ssmc.frontend.source.kernels import UNARY_OPS
from ssmc.frontend.source.listing import Call, Listing
from ssmc.frontend.source.operands import axes_of, in_codes, text
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.threads import cores

KEPT = 1 << 24  # entries of a result that becomes a constant of the listing; larger ones are made when asked for
SMALL = 1 << 17  # entries of one that is held whole though only other constants are made of it
BLOCK = 1 << 16  # entries of a table that are worked on at a time
HELD = 1 << 26  # entries of one that is held whole while other constants are made of it
ROOM = 1 << 26  # entries of all results larger than KEPT that become constants of the listing
POINTWISE = frozenset(UNARY_OPS) | {"Add", "Sub", "Mul", "Div", "Pow", "Sum", "Max", "Min", "Cast"}

Index = Any  # a slice or an array of integers


@dataclass(eq=False, repr=False)
class Table:
    """A large array that is an elementwise function of others, computed in parts."""

    shape: tuple[int, ...]
    call: Call
    operands: tuple[Any, ...]  # arrays and tables, None where absent

    @property
    def size(self) -> int:
        return prod(self.shape)

    def part(self, axis: int, index: Index, memo: dict[Table, Array] | None = None) -> Array:
        """The entries at `index` of one axis. Raises UserError where the ops cannot run."""
        memo = {} if memo is None else memo
        if self not in memo:
            back = axis % len(self.shape) - len(self.shape)
            arrays = [None if x is None else part_of(x, back, index, memo) for x in self.operands]
            memo[self] = np.asarray(run_call(self.call, arrays)[0])
        return memo[self]

    def whole(self) -> Array:
        """All entries, worked out some rows at a time."""
        rows = max(1, BLOCK * self.shape[0] // max(1, self.size)) if self.shape else 1
        parts = [self.part(0, slice(start, start + rows)) for start in range(0, self.shape[0], rows)]
        return np.concatenate(parts)


def part_of(operand: Any, back: int, index: Index, memo: dict[Table, Array]) -> Array:
    """What an operand contributes to the entries at `index` of its result's axis `back`, counted from the end."""
    if len(operand.shape) < -back or operand.shape[back] == 1:
        return operand.part(0, slice(None), memo) if isinstance(operand, Table) else operand
    if isinstance(operand, Table):
        return operand.part(len(operand.shape) + back, index, memo)
    return np.asarray(operand[(slice(None),) * (operand.ndim + back) + (index,)])


def fold_statics(listing: Listing) -> None:
    """Run all nodes that read constants alone; results become constants of the listing, or, if large, its tables.

    A node that cannot run is left as it is: whoever needs its result will say why. Chains of nodes on a large weight
    are run once; of their results only those are held that are still to be read, and beyond `ROOM` none is kept.
    """
    found: dict[Value, Any] = {}  # arrays and tables
    last = {v: call.position for call in listing.calls for v in call.operands if v is not None}
    asked = set(listing.outputs.values())
    weights = {value for value, array in listing.constants.items() if np.size(array) > SMALL}
    passing = set[Value]()  # made of whole tables, so that tables made of them hold these
    for call in listing.calls:
        operands = [None if v is None else found.get(v, listing.constants.get(v)) for v in call.operands]
        results = None
        if all(v is None or x is not None for v, x in zip(call.operands, operands, strict=True)):
            results = _folded(call, operands, weights)
        if results is None:
            asked.update(v for v in call.operands if v is not None)
        else:
            found.update(zip(call.results, results, strict=False))
            if call.kind in CONTRACTED and any(isinstance(x, Table) for x in operands):
                asked.update(call.results)  # to make it again takes the whole table
            if any(v in passing for v in call.operands) or _of_whole(call, operands, results):
                passing.update(call.results)
        for v in call.operands:
            large = v in found and (_is_large(found[v]) or v in passing)
            if large and v is not None and last[v] == call.position and v not in asked:
                del found[v]
                listing.folded.add(v)
    listing.tables.update({v: x for v, x in found.items() if isinstance(x, Table)})
    listing.constants.update(_kept({v: x for v, x in found.items() if not isinstance(x, Table)}))


def _kept(found: dict[Value, Any]) -> dict[Value, Any]:
    """What there is room for, the first ones first."""
    room, kept = ROOM, dict[Value, Any]()
    for value, result in found.items():
        size = 0 if isinstance(result, list) else int(np.size(result))
        if size <= KEPT or size <= room:
            kept[value] = result
            room -= size if size > KEPT else 0
    return kept


def _of_whole(call: Call, operands: list[Any], results: list[Any]) -> bool:
    """Was a table held whole to make something large of it?"""
    tables = any(isinstance(x, Table) for x in operands)
    return tables and call.kind not in CONTRACTED and any(_is_large(x) for x in results)


def _is_large(result: Any) -> bool:
    return not isinstance(result, Table | list) and bool(np.size(result) > SMALL)


def _folded(call: Call, operands: list[Any], weights: Collection[Value]) -> list[Any] | None:
    """Results of a static call, as arrays or tables; None where they cannot be had or are not worth keeping."""
    if call.kind.startswith("Random"):
        return None
    if call.kind in (*MOVES, "Cast") and operands and operands[0] is not None and call.operands[0] in weights:
        return None  # a copy of a weight in another shape costs more than it saves
    try:
        return _run(call, operands)
    except (UserError, ValueError):
        return None


def _run(call: Call, operands: list[Any]) -> list[Any] | None:
    arrays = [x for x in operands if x is not None]
    if call.kind in POINTWISE and len(call.results) == 1 and not any(isinstance(x, list) for x in arrays):
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        if prod(shape) > SMALL:
            return [Table(shape, call, tuple(operands))]
    if not any(isinstance(x, Table) for x in arrays):
        given = in_codes(operands, call.attrs) if call.kind == "QuantizeLinear" else operands
        return _small(list(run_call(call, given)), arrays)
    rule = CONTRACTED.get(call.kind)
    cut = None if rule is None else rule(call, operands)
    if cut is not None:
        return _in_pieces(call, operands, cut)
    if any(x.size > HELD for x in arrays if isinstance(x, Table)):
        return None
    whole = [x.whole() if isinstance(x, Table) else x for x in operands]
    return _small(list(run_call(call, whole)), arrays)


def _small(results: list[Any], operands: list[Any]) -> list[Any] | None:
    """The results, if they are no larger than what is kept, or than what they are made of and may be held."""
    largest = max((x.size for x in operands if not isinstance(x, list)), default=0)
    most = max(KEPT, min(HELD, largest))
    return None if any(not isinstance(x, list) and np.size(x) > most for x in results) else results


def _in_pieces(call: Call, operands: list[Any], cut: list[bool]) -> list[Any] | None:
    """The result of a call that can be made some rows at a time."""
    tables = [x for x in operands if isinstance(x, Table)]
    height, size = tables[0].shape[0], max(x.size for x in tables)
    rows = max(1, BLOCK * height // size)

    def piece(start: int) -> Array:
        memo: dict[Table, Array] = {}
        block = slice(start, min(start + rows, height))
        arrays = [_rows(x, block, memo) if c else x for x, c in zip(operands, cut, strict=True)]
        return np.asarray(run_call(call, arrays)[0])

    first = piece(0)
    if first.size * height > KEPT * min(rows, height):
        return None
    with ThreadPoolExecutor(cores()) as pool:
        return [np.concatenate([first, *pool.map(piece, range(rows, height, rows))])]


def _rows(operand: Any, block: slice, memo: dict[Table, Array]) -> Array:
    return operand.part(0, block, memo) if isinstance(operand, Table) else np.asarray(operand[block])


# For each op that makes a small result of a large one: which operands are to be cut along their first axis so that the
# result comes in the same pieces, one after the other; None where it does not.


def _reduced(call: Call, operands: list[Any]) -> list[bool] | None:
    axes = axes_of(operands, call.attrs, 1)
    rank = len(operands[0].shape)
    if not isinstance(operands[0], Table) or axes is None or any(a % rank == 0 for a in axes):
        return None
    return [k == 0 for k in range(len(operands))]


def _multiplied(call: Call, operands: list[Any]) -> list[bool] | None:
    a, b = (x.shape for x in operands)
    rank = max(len(a), len(b))
    if rank < 3 or sum(isinstance(x, Table) for x in operands) != 1:
        return None
    height = next(x.shape[0] for x in operands if isinstance(x, Table))
    cut = [len(s) == rank and s[0] != 1 for s in (a, b)]
    table = [isinstance(x, Table) for x in operands]
    fits = all(s[0] == height for s, c in zip((a, b), cut, strict=True) if c)
    return cut if fits and all(c or not t for c, t in zip(cut, table, strict=True)) else None


def _summed(call: Call, operands: list[Any]) -> list[bool] | None:
    equation = text(call.attrs["equation"]).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    if not arrow or "." in equation or not result:
        return None
    letters = terms.split(",")
    cut = [result[0] in term for term in letters]
    first = all(term[0] == result[0] for term, c in zip(letters, cut, strict=True) if c)
    tabled = all(c or not isinstance(x, Table) for x, c in zip(operands, cut, strict=True))
    return cut if first and tabled else None


CONTRACTED: dict[str, Callable[[Call, list[Any]], list[bool] | None]] = {
    "ReduceSum": _reduced,
    "ReduceMean": _reduced,
    "MatMul": _multiplied,
    "Einsum": _summed,
}
