"""In which loops over time ops are, where there is a choice: whole programs are compiled and timed.

An op that takes each step by itself may be in the loop that makes what it reads, or in a later one that alone reads its
result, as a matrix that drives states which read their stream from its end. Fewer words through DRAM are one thing,
room and an idle engine another. On an array without states what stands for them crowds matrices, whose weights come
again with every chunk: both may be in loops of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from backends.epochcore.arch import Arch
from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.flow import OWN, READERS, SYSTEMS, WORDS, plan_flow
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit

TOLD = {
    WORDS: "steps where fewest words go through DRAM",
    OWN: "steps in the loop of their operands",
    READERS: "steps in the loop of their readers",
    SYSTEMS: "states and matrices in loops of their own",
}


def fastest(made: Assembly, again: Callable[[Request], Assembly]) -> Assembly:
    """The program as it is, or with the loops cut elsewhere, whichever serves the objective; `again` lowers it for a
    request. Where a form is asked for, it stays."""
    graph, request = made.low.graph, made.low.request
    if request.name:
        return made  # systems have forms together with their matrices
    seen, tried, names = [made.low.flow.stage], [made], [made.low.request.loops]
    for name in (OWN, READERS, *((SYSTEMS,) if _plain(made.low.arch) else ())):
        stage = plan_flow(graph, name, made.low.flow.most).stage
        if stage in seen:
            continue
        seen.append(stage)
        with suppress(Misfit):
            other = again(replace(request, loops=name, streamed=request.streamed or name == SYSTEMS))
            assert other.costs
            tried.append(other)
            names.append(name)
    if len(tried) == 1:
        return made
    best = tried[objective.best([other.costs for other in tried], request.objective)]
    told = [other.told("loops", TOLD[name], chosen=other is best) for name, other in zip(names, tried, strict=True)]
    chosen_anew = {line["choice"] for line in best.schedules}
    kept = (line for line in made.superseded("loops") if line["choice"] not in chosen_anew)
    best.schedules = (*told, *made.schedules) if best is made else (*told, *kept, *best.schedules)
    return best


def _plain(arch: Arch) -> bool:
    """Whether an array multiplies alone, and states are scanned in the vector unit, at every step or every window."""
    return set(arch.array.modes) <= {"mac", "mac.os"}
