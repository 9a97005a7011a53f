"""Tables of positions where the length is dynamic: as many rows as the file has, not only those of the sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.evaluate import evaluate
from ssmc.frontend.flow import Known, Unsupported, reduced_table
from ssmc.frontend.listing import Listing
from ssmc.frontend.translator import Translator
from ssmc.ir.graph import Value
from ssmc.ir.op import Array
from ssmc.ir.tensor import Tensor

LONGEST = 2048  # rows of a table that the file computes for any length (ours)


def extend_tables(translator: Translator, point: Mapping[Value, Array]) -> int | None:
    """Compute the tables anew at `point`, inputs of `LONGEST` steps; rows of the shortest, None if there are none.

    A table that the file slices from a stored one gets all its rows, one that it computes gets `LONGEST`.
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


def _longer(listing: Listing, point: Mapping[Value, Array], value: Value, labels: str, old: Array) -> Array:
    """The table at the longer inputs, as far as it is finite, if it goes on as the old one began."""
    try:
        table, changing = reduced_table(np.asarray(evaluate(listing, point, [value])[value], np.float64), labels)
    except (UserError, Unsupported):
        return old
    table = table.reshape(len(table), -1) if changing else old
    finite = np.isfinite(table).all(axis=1)
    table = table[: len(table) if finite.all() else int(np.argmin(finite))]
    if table.shape[1:] != old.shape[1:] or len(table) < len(old) or np.any(table[: len(old)] != old):
        return old
    return table
