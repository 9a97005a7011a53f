"""In which loops over time ops are, where there is a choice: whole programs are compiled and timed.

An op that takes each step by itself may be in the loop that makes what it reads, or in a later one that alone reads its
result, as a matrix that drives states which read their stream from its end. Fewer words through DRAM are one thing,
room and an idle engine another. And states that crowd the scratchpad leave little room for steps: those of later layers
may be in further loops. On an array without states what stands for them crowds matrices, whose weights come again with
every chunk: both may be in loops of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from backends.epochcore.arch import Arch
from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.flow import OWN, READERS, SYSTEMS, WORDS, crowded, plan_flow
from backends.epochcore.lower.request import Request
from ssmc.diagnostics import Misfit
from ssmc.ir import Graph

SHARE = 8  # of the scratchpad: a loop of states that are apart has no more of them, so that its chunks are long (ours)
FEW, APART = "states in as few loops as can be", "states of later layers in further loops"
TOLD = {
    WORDS: "steps where fewest words go through DRAM",
    OWN: "steps in the loop of their operands",
    READERS: "steps in the loop of their readers",
    SYSTEMS: "states and matrices in loops of their own",
}


def most_words(arch: Arch, request: Request) -> int:
    """Words of states that a loop has at most, where they are apart."""
    return arch.memory.scratchpad_words // max(1, request.together) // SHARE


def fitting(make: Callable[[Request], Assembly], graph: Graph, arch: Arch, request: Request) -> Assembly:
    """The program that fits: with everything in the scratchpad, or with parameters there for their loops alone; where
    states crowd it, with those of all layers in as few loops as can be, or apart, whichever serves the objective.

    Raises Misfit where nothing fits.
    """
    ways = {FEW: request}
    if not request.apart and crowded(graph, arch.memory.scratchpad_words // max(1, request.together)):
        apart = plan_flow(graph, request.loops, most_words(arch, request))
        if apart.stage != plan_flow(graph, request.loops).stage:
            ways[APART] = replace(request, apart=True)
    fits: dict[str, Assembly] = {}
    refused: list[Misfit] = []
    for name, asked in ways.items():
        try:
            fits[name] = _within(make, asked)
        except Misfit as misfit:
            refused.append(misfit)
    if not fits:
        raise min(refused, key=lambda misfit: misfit.demand / max(1, misfit.bound))
    if len(fits) == 1:
        return next(iter(fits.values()))
    tried = list(fits.values())
    best = tried[objective.best([one.costs for one in tried], request.objective)]
    told = [one.told("states", name, chosen=one is best) for name, one in fits.items()]
    best.schedules = (*told, *best.schedules)
    return best


def _within(make: Callable[[Request], Assembly], request: Request) -> Assembly:
    try:
        return make(request)
    except Misfit as all_at_once:
        try:
            return make(replace(request, streamed=True))
        except Misfit:
            raise all_at_once from None


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
