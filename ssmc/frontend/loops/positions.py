"""Tables of positions where the length is dynamic: as many rows as the file has, not only those of the sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.graph.flow import Known, Unsupported, reduced_table
from ssmc.frontend.source.evaluate import evaluate
from ssmc.frontend.source.listing import Listing
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

LONGEST = 2048  # rows of a table that the file computes for any length (ours)


def extend_tables(translator: Translator, point: Callable[[int], Mapping[Value, Array]]) -> int | None:
    """Compute the tables anew at `point(steps)`, longer inputs; rows of the shortest, None if there are none.

    A table that the file slices from a stored one gets all its rows, one that it looks up as many as can be looked up,
    one that it computes gets `LONGEST`.
    """
    builder, listing = translator.builder, translator.listing
    made = {id(item.array): value for value, item in translator.env.items() if isinstance(item, Known)}
    rows: list[int] = []
    for node, (array, labels) in builder.tables.items():
        if node not in builder.graph:
            continue
        old = builder.graph.op(node)["table"].array
        value = made.get(id(array))
        table = old if value is None else _longer(listing, point, value, labels, old)
        builder.graph.set_op(node, builder.graph.op(node).with_attrs(table=Tensor(table)))
        rows.append(len(table))
    return min(rows, default=None)


def _longer(
    listing: Listing, point: Callable[[int], Mapping[Value, Array]], value: Value, labels: str, old: Array
) -> Array:
    """The table at longer inputs, as far as it is finite, if it goes on as the old one began."""
    found = _table_at(listing, point(LONGEST), value, labels)
    if found is None:  # a stored table has an end: the largest length that does not run over it
        works, fails = len(old), LONGEST
        while fails - works > 1:
            steps = (works + fails) // 2
            longer = _table_at(listing, point(steps), value, labels)
            works, fails, found = (works, steps, found) if longer is None else (steps, fails, longer)
    if found is None:
        return old
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
