"""Tables of positions where the length is dynamic: as many rows as the file has, not only those of the sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.findings import Refusal, refusal
from ssmc.frontend.graph.flow import Known, Unsupported, reduced_table
from ssmc.frontend.loops.by_length import followed_by, law_of
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

LONGEST = 2048  # rows of a table that the file computes for any length (ours)
UNLIKE = (
    "what it gives for a step is another number in a longer sequence, and counted neither from the first step nor from "
    "the last: export the model with a fixed length, or with a table of so many steps"
)


@dataclass(frozen=True)
class Tables:
    """Nodes that look up what a step's number tells: their rows, and why some are right at one length only."""

    rows: Mapping[str, int] = field(default_factory=dict)
    unlike: Mapping[str, Refusal] = field(default_factory=dict)

    def notes(self, graph: Graph) -> tuple[str, ...]:
        """How long sequences may be, if tables are left in the graph."""
        rows = min((count for node, count in self.rows.items() if node in graph), default=None)
        return () if rows is None else (f"positions are known for {rows} steps; longer sequences are refused",)

    def refusals(self, graph: Graph) -> list[Refusal]:
        """What is told of the tables left in the graph that are right at one length only."""
        return [told for node, told in self.unlike.items() if node in graph]


def extend_tables(translator: Translator, point: Callable[[int], Mapping[Value, Array]]) -> Tables:
    """Compute the tables anew at `point(steps)`, longer inputs.

    A table that the file slices from a stored one gets all its rows, one that it looks up as many as can be looked up,
    one that it computes gets `LONGEST`. One that is another at every length is counted from the last step, or divided
    by the length (`by_length`).
    """
    builder, listing = translator.builder, translator.listing
    known = {value: item for value, item in translator.env.items() if isinstance(item, Known)}
    made = {id(item.array): value for value, item in known.items()}
    rows: dict[str, int] = {}
    unlike: dict[str, Refusal] = {}
    for node, (array, labels) in list(builder.tables.items()):
        if node not in builder.graph:
            continue
        old = builder.graph.op(node)["table"].array
        value = made.get(id(array)) or next((v for v, item in known.items() if _is_same(item, array)), None)
        found = None if value is None else _longest(listing, point, value, labels, len(old))
        table = old if found is None else _continued(old, found)
        builder.graph.set_op(node, builder.graph.op(node).with_attrs(table=Tensor(table)))
        rows[node] = len(table)
        if found is None or value is None or len(table) > len(old) or len(found) <= len(old):
            continue
        law = law_of(old, found.reshape(len(found), -1))
        if law is None:
            call = listing.producer[value]
            unlike[node] = refusal(call.name, call.kind, UNLIKE)
            continue
        with builder.origin(builder.graph.node(node).provenance):
            flat, stream = followed_by(builder, builder.graph.operand(node, 0), law)
        assert isinstance(stream, Value)
        builder.graph.replace_uses(Value(node), stream)
        rows[flat.node] = len(law.rows)
    return Tables(rows, unlike)


def _is_same(item: Known, array: Array) -> bool:
    """Is the array what is known, as numbers?"""
    return isinstance(item.stored, np.ndarray) and item.shape == array.shape and np.array_equal(item.stored, array)


def _longest(
    listing: Listing, point: Callable[[int], Mapping[Value, Array]], value: Value, labels: str, steps: int
) -> Array | None:
    """The table at longer inputs than `steps`, as long as it can be; None where it cannot be computed."""
    found = _table_at(listing, point(LONGEST), value, labels)
    if found is None:  # a stored table has an end: the largest length that does not run over it
        works, fails = steps, LONGEST
        while fails - works > 1:
            between = (works + fails) // 2
            longer = _table_at(listing, point(between), value, labels)
            works, fails, found = (works, between, found) if longer is None else (between, fails, longer)
    return found


def _continued(old: Array, found: Array) -> Array:
    """The longer table, as far as it is finite, if it goes on as the old one began; else the old one."""
    table = found.reshape(len(found), -1)
    finite = np.isfinite(table).all(axis=1)
    table = table[: len(table) if finite.all() else int(np.argmin(finite))]
    if table.shape[1:] != old.shape[1:] or len(table) < len(old) or np.any(table[: len(old)] != old):
        return old
    return table


def _table_at(listing: Listing, point: Mapping[Value, Array], value: Value, labels: str) -> Array | None:
    try:
        table, changing = reduced_table(np.asarray(evaluate(listing, point, [value])[value], np.float64), labels)
    except (UserError, Unsupported):
        return None
    return table if changing else None
