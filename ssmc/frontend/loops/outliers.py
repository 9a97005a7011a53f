"""Steps at which the constants of a loop show all that changes in them: one row of a table may be unlike the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

MOST = 4  # steps more that a table adds to those at which a loop is studied (ours)


def telling_steps(tables: Sequence[tuple[Any, int]], steps: Collection[int]) -> set[int]:
    """The `steps`, and more: where entries of a table (array, its axis of steps) change that are the same at those."""
    found = set(steps)
    for array, axis in tables:
        rows = np.moveaxis(np.asarray(array), axis, 0)
        rows = rows.reshape(len(rows), -1)
        differs = rows != rows[:1]
        for _ in range(MOST):
            hidden = differs & ~differs[sorted(found)].any(axis=0)
            if not hidden.any():
                break
            found.add(int(hidden.sum(axis=1).argmax()))
    return found
