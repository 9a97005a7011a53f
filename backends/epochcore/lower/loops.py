"""In which of two loops over time an op is that takes each step by itself, where both could have it: the one that makes
what it reads, or a later one that alone reads its result, as a matrix that drives states which read their stream from
its end. Fewer words through DRAM are one thing, room and an idle engine another: whole programs are compiled and timed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.flow import OWN, READERS, WORDS, plan_flow
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit

TOLD = {
    WORDS: "steps where fewest words go through DRAM",
    OWN: "steps in the loop of their operands",
    READERS: "steps in the loop of their readers",
}


def fastest(made: Assembly, again: Callable[[Request], Assembly]) -> Assembly:
    """The program as it is, or with the loops cut elsewhere, whichever serves the objective; `again` lowers it for a
    request. Where a form is asked for, it stays."""
    graph, request = made.low.graph, made.low.request
    if request.name:
        return made  # systems have forms together with their matrices
    seen, tried, names = [made.low.flow.stage], [made], [made.low.request.loops]
    for name in (OWN, READERS):
        stage = plan_flow(graph, name).stage
        if stage in seen:
            continue
        seen.append(stage)
        with suppress(Misfit):
            other = again(replace(request, loops=name))
            assert other.costs
            tried.append(other)
            names.append(name)
    if len(tried) == 1:
        return made
    best = tried[objective.best([other.costs for other in tried], request.objective)]
    told = [other.told("loops", TOLD[name], chosen=other is best) for name, other in zip(names, tried, strict=True)]
    best.schedules = (*told, *(best.schedules or made.schedules))
    return best
