"""When every op runs, where engines wait for whole instructions: `queues` says how, `queue_records` what these
functions work on. They are compiled, and all in one file, as the compiler looks for changes in the file of the
outermost one only.
"""

from __future__ import annotations

from backends.epochcore.clock.queue_records import (
    AT,
    BUSY,
    CHANNEL,
    COMPUTE,
    CYCLES,
    ENDED,
    FINISH,
    FREE,
    HOLDS,
    KIND,
    LEFT,
    LOAD,
    MOVES,
    NEEDS,
    NONE,
    OF_WAVE,
    OUT,
    POPS,
    PRICE,
    PUSHES,
    START,
    STATE_STORE,
    STOP,
    STORE,
    SYNC,
    TAKEN,
    THROUGH,
    TURNS,
    WAVE,
    Ints,
)
from backends.epochcore.clock.records import Number
from ssmc.jit import compiled


@compiled
def timed(
    ops: Ints, prices: Ints, behind: Ints, needs: Ints, order: Ints, given: Ints, engines: Ints, runs: Ints, last: Ints
) -> None:
    """Time ops, as far as there are tokens; `behind` is by wave how much later one may follow another."""
    while True:
        chosen, first = NONE, 0
        for engine in TURNS:
            ready = _ready(engine, ops, prices, behind, needs, order, given, engines, runs, last)
            if ready >= 0 and (chosen < 0 or ready < first):
                chosen, first = engine, ready
            # when the others have gone as far as they can, it is known what comes first to the channel
            if chosen >= 0 and engine not in (LOAD, STORE):
                break
        if chosen < 0:
            return
        _begin(chosen, first, ops, prices, order, given, engines, runs, last)


@compiled
def _ready(
    engine: int,
    ops: Ints,
    prices: Ints,
    behind: Ints,
    needs: Ints,
    order: Ints,
    given: Ints,
    engines: Ints,
    runs: Ints,
    last: Ints,
) -> Number:
    """When the first op of a queue can start, the channel apart; negative where that is not known yet."""
    if engines[AT, engine] == engines[STOP, engine]:
        return NONE
    op = order[engines[AT, engine]]
    ready, kind = engines[FREE, engine], ops[KIND, op]
    for other in range(engines.shape[1]):
        if ops[POPS, op] >> other & 1:
            giver = token(other, engine, ops, order, given, engines)
            if giver < 0:
                return NONE
            ready = max(ready, runs[FINISH, giver])
    for which in range(NEEDS):
        other = needs[which, op]
        if other >= 0:
            known = runs[LEFT if which == TAKEN else FINISH, other]
            if known < 0:
                return NONE
            ready = max(ready, known)
    if kind == SYNC:
        return max(ready, engines[ENDED, engine])
    if kind == STATE_STORE:
        ready = max(ready, last[OUT])
    if engine == COMPUTE and last[WAVE] >= 0:
        wave = prices[OF_WAVE, ops[PRICE, op]]
        # a pass of no steps sends nothing through the array: it waits until it is empty
        ready = max(ready, engines[ENDED, engine] if wave < 0 else last[THROUGH] + behind[wave, last[WAVE]])
    return ready


@compiled
def token(other: int, engine: int, ops: Ints, order: Ints, given: Ints, engines: Ints) -> Number:
    """The op of another engine whose token an engine takes next; negative where none has given one."""
    place = given[other, engine]
    while place < engines[AT, other] and not ops[PUSHES, order[place]] >> engine & 1:
        place += 1
    given[other, engine] = place
    return order[place] if place < engines[AT, other] else NONE


@compiled
def _begin(
    engine: int,
    ready: int,
    ops: Ints,
    prices: Ints,
    order: Ints,
    given: Ints,
    engines: Ints,
    runs: Ints,
    last: Ints,
) -> None:
    """Start the first op of a queue."""
    op = order[engines[AT, engine]]
    engines[AT, engine] += 1
    kind, price, start = ops[KIND, op], ops[PRICE, op], ready
    free = start + prices[BUSY, price]
    if prices[MOVES, price]:
        start = max(ready, last[CHANNEL])
        free = last[CHANNEL] = start + prices[BUSY, price]
    finish = max(engines[ENDED, engine], start + prices[CYCLES, price])
    engines[FREE, engine], engines[ENDED, engine] = free, finish
    runs[START, op], runs[FINISH, op] = start, finish
    if engine == COMPUTE and kind != SYNC:
        last[THROUGH], last[WAVE] = free, prices[OF_WAVE, price]
        runs[LEFT, op] = start + prices[HOLDS, price]
        if kind == STATE_STORE:
            last[OUT] = start + prices[CYCLES, price]
    for other in range(engines.shape[1]):
        if ops[POPS, op] >> other & 1:
            given[other, engine] += 1
