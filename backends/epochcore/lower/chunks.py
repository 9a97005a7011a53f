"""Into how many chunks a sequence is cut: as few as the scratchpad has room for, or more where that is faster.

The array waits for the first chunk of a loop to come from DRAM, and nobody for the last one to go there but the end.
Of shorter chunks these take less, and more of what lies between overlaps; each one fills and drains the engines again.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower import arrangement
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.objective import NEAR, best
from ssmc.diagnostics import Misfit

MOST = 8  # chunks of a loop beyond which more are not tried: the first one is a small part of a sequence (ours)
MORE = 1.5, 2, 3, 4, 6, 8  # times as many chunks
TIMED = 20_000  # instructions beyond which this is left out where engines wait for tokens, which is slow to time
FAR = 1.05  # times the fewest cycles: what is as much slower is not followed any further
PATIENCE = 2  # of these in a row that are no faster, before the others are left out
FEWEST = "as few as the scratchpad has room for"


def fastest(made: Assembly) -> Assembly:
    """The program as it is, or with shorter chunks, whichever serves sequences best that are as long as those that
    forms are chosen for; `schedules` in the program's data tells it where that is so."""
    if made.draft.most or not _waits(made):
        return made
    found, seen, since = {FEWEST: made}, {_limits(made)}, 0
    ways = {"": made.draft}
    if (copied := arrangement.with_copies(made.draft)) is not made.draft:
        ways[", residuals copied"] = copied
    for more in MORE:
        others = {how: replace(made, more=more, draft=draft) for how, draft in ways.items()}
        if since == PATIENCE:
            break
        if (limits := _limits(next(iter(others.values())))) in seen:
            continue
        seen.add(limits)
        how = min(others, key=lambda how: _cycles(others[how]))
        least, other = min(one.costs[0] for one in found.values()), others[how]
        found[f"{more:g} times as many{how}"], since = other, 0 if other.costs[0] < least else since + 1
        if other.costs[0] > FAR * least:
            break
        ways = {how: other.draft}
    chosen = list(found)[best([other.costs for other in found.values()], made.low.request.objective)]
    if found[chosen] is made:
        return made
    told = [other.told("chunks", name, chosen=name == chosen) for name, other in found.items()]
    found[chosen].schedules = (*made.superseded("chunks"), *told)
    return found[chosen]


def _cycles(made: Assembly) -> float:
    """Cycles; without end where copies leave no room."""
    try:
        return made.costs[0]
    except Misfit:
        return inf


def _waits(made: Assembly) -> bool:
    """Whether chunks are few and what comes or goes with one of each loop takes more than a little of the cycles."""
    low, steps = made.low, made.low.request.steps
    limits = _limits(made)
    if not limits or steps > MOST * min(limits):
        return False
    arch, timed = low.arch, len(made.to_time.sections[0].code) * ceil_div(steps, min(limits))
    if not arch.array.handover_steps and timed > TIMED:
        return False
    words = sum(stream.words for stream in low.streams if stream.register != "one")
    moved = words * max(limits) * arch.memory.word_bits / 8
    return moved * arch.clock_hz / arch.dram.bytes_per_second > NEAR * made.costs[0]


def _limits(made: Assembly) -> tuple[int, ...]:
    """Steps of a chunk, by loop."""
    code = made.to_time.sections[0].code
    return tuple(min(made.low.request.steps, int(ins["limit"])) for ins in code if ins.mnemonic == "chunks")
