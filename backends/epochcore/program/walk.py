"""What instructions that are visited one after the other need of those before them: the compiled part of `ledger`."""

from __future__ import annotations

import numpy as np

from backends.epochcore.program.cells import Cells, Ints, Visits
from ssmc.jit import compiled


@compiled
def walked(
    visits: Visits, at_once: bool, reads: Cells, writes: Cells, written: Ints, touched: Ints, latest: Ints
) -> None:
    """Fill `latest` by visit and engine; `written` and `touched` are by engine and cell: spans are long."""
    engines = latest.shape[1]
    for visit in range(len(latest)):
        i, own, row = visits.instruction[visit], visits.engine[visit], latest[visit]
        for other in range(engines):
            row[other] = _latest(i, writes, touched[other])
        # an engine reads and writes in order: only reading what is still being written must wait
        row[own] = 0
        for other in range(engines):
            row[other] = max(row[other], _latest(i, reads, written[other]))
        if not at_once:
            _visited(visit, visits, reads, writes, written, touched)
    if at_once:
        for visit in range(len(latest)):
            _visited(visit, visits, reads, writes, written, touched)


@compiled
def _latest(i: int, spans: Cells, cells: Ints) -> int:
    """When an engine was last at a cell of an instruction."""
    found = 0
    for span in range(spans.at[i], spans.at[i + 1]):
        for cell in range(spans.low[span], spans.high[span]):
            found = max(found, cells[cell])
    return found


@compiled
def _visited(visit: int, visits: Visits, reads: Cells, writes: Cells, written: Ints, touched: Ints) -> None:
    """An engine has now read and written the cells of an instruction."""
    i, own, now = visits.instruction[visit], visits.engine[visit], visits.at[visit]
    _note(i, now, reads, touched[own])
    _note(i, now, writes, touched[own])
    _note(i, now, writes, written[own])


@compiled
def _note(i: int, now: int, spans: Cells, cells: Ints) -> None:
    for span in range(spans.at[i], spans.at[i + 1]):
        for cell in range(spans.low[span], spans.high[span]):
            cells[cell] = now


@compiled
def covered(latest: Ints, engine: Ints, ordered: Ints) -> None:
    """Leave out of `latest`, by visit and engine, what the visits' engines know already from visits before; those that
    are `ordered` know all of their own."""
    engines = latest.shape[1]
    seen = np.zeros((engines, engines), np.int64)
    for visit in range(len(latest)):
        own = engine[visit]
        for other in range(engines):
            if latest[visit, other] <= seen[own, other] or (other == own and ordered[own]):
                latest[visit, other] = 0
            else:
                seen[own, other] = latest[visit, other]
