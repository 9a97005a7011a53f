"""What instructions that are visited one after the other need of those before them: the compiled part of `ledger`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssmc.jit import compiled

Ints = NDArray[np.int64]


@compiled
def walked(
    index: Ints,
    engine: Ints,
    at: Ints,
    at_once: bool,
    read_at: Ints,
    read_low: Ints,
    read_high: Ints,
    write_at: Ints,
    write_low: Ints,
    write_high: Ints,
    written: Ints,
    touched: Ints,
    latest: Ints,
) -> None:
    """Fill `latest` by visit and engine; `written` and `touched` are by cell and engine.

    Visits are of instructions, which have spans of cells to read and to write from where `read_at` and `write_at` say.
    """
    visits, engines = latest.shape
    for visit in range(visits):
        i, own, row = index[visit], engine[visit], latest[visit]
        for span in range(write_at[i], write_at[i + 1]):
            for cell in range(write_low[span], write_high[span]):
                for other in range(engines):
                    row[other] = max(row[other], touched[cell, other])
        # an engine reads and writes in order: only reading what is still being written must wait
        row[own] = 0
        for span in range(read_at[i], read_at[i + 1]):
            for cell in range(read_low[span], read_high[span]):
                for other in range(engines):
                    row[other] = max(row[other], written[cell, other])
        if not at_once:
            _note(i, own, at[visit], read_at, read_low, read_high, touched)
            _note(i, own, at[visit], write_at, write_low, write_high, touched)
            _note(i, own, at[visit], write_at, write_low, write_high, written)
    if at_once:
        for visit in range(visits):
            i, own = index[visit], engine[visit]
            _note(i, own, at[visit], read_at, read_low, read_high, touched)
            _note(i, own, at[visit], write_at, write_low, write_high, touched)
            _note(i, own, at[visit], write_at, write_low, write_high, written)


@compiled
def _note(i: int, own: int, now: int, first: Ints, low: Ints, high: Ints, cells: Ints) -> None:
    """An engine does so now, with the cells of an instruction."""
    for span in range(first[i], first[i + 1]):
        for cell in range(low[span], high[span]):
            cells[cell, own] = now
