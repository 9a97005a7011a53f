"""Copies of the layers that keep the busiest core from the next event.

Products of different steps do not need each other. Where the products of one layer are most of what the busiest core
does, the layer's arrays are programmed again on free cores near by, each time on as few as hold them. The copies take
turns over the steps: the layer's core sends the vectors away and collects the results; of a copy on several cores one
sends parts of the vector on and adds up what comes back. States stay where they are. A copy costs arrays, their
programming and words on the mesh; it is kept where the time between events falls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from backends.cim.arch import Architecture
from backends.cim.clock.costs import cost
from backends.cim.clock.timing import schedule
from backends.cim.lower.coupling import coupling_of
from backends.cim.lower.lowering import Copy
from backends.cim.program.decode import Item, cores, decode
from isa import FrozenMap, Program
from ssmc.ir import Graph, StreamType

Turns = Mapping[str, tuple[Copy, ...]]
WORTH = 0.98  # of the time between events that another copy must get below (ours)


def replicated(make: Callable[[Turns], Program], graph: Graph, arch: Architecture) -> Program:
    """The program with the copies that pay, what they are in its metadata under 'copies'."""
    turns: dict[str, tuple[Copy, ...]] = {}
    program = make(turns)
    if arch.mesh.copies == 1 or any(graph.attributes.get("loads", {}).values()):
        return program
    began = interval = schedule(program, arch, 1).interval
    while (found := _better(make, program, graph, arch, turns, interval)) is not None:
        turns, program, interval = found
    if not turns:
        return program
    told = [
        {
            "layer": name,
            "copies": len(copies),
            "arrays": len(copies) * len(copies[0].units),
            "cores": [core for copy in copies for core in dict.fromkeys([copy.core, *_cores_of(copy, arch)])],
        }
        for name, copies in turns.items()
    ]
    seconds = {"interval_seconds": interval / arch.vector.clock_hertz, "once_seconds": began / arch.vector.clock_hertz}
    return replace(program, meta=FrozenMap({**program.meta, "copies": {"layers": told, **seconds}}))


def _better(
    make: Callable[[Turns], Program], program: Program, graph: Graph, arch: Architecture, turns: Turns, interval: float
) -> tuple[dict[str, tuple[Copy, ...]], Program, float] | None:
    """One copy more (two at first) of the layer with the most products on the busiest core for which that pays."""
    for more in _one_more(program, graph, arch, turns):
        longer = make(more)
        found = schedule(longer, arch, 1).interval
        if found <= WORTH * interval:
            return more, longer, found
    return None


def _one_more(
    program: Program, graph: Graph, arch: Architecture, turns: Turns
) -> Iterator[dict[str, tuple[Copy, ...]]]:
    """The copies there are, and for a layer with products on the busiest core one more; those with the most first."""
    busy, products = _cycles(program, arch)
    if not busy:
        return
    coupled = coupling_of(graph, ideal=bool(program.meta.get("ideal"))).products
    core = max(busy, key=lambda number: (busy[number], -number))
    for name, _ in products[core].most_common():
        if not isinstance(graph.node(name).types[0], StreamType) or graph.op(name).name != "tile.matmul":
            continue
        if name in coupled:  # its lines end in the core of the states
            continue
        own, units = turns.get(name, ()), sorted({piece.unit for piece in graph.op(name)["pieces"]})
        wanted = 2 if not own else 1
        if len(own) + wanted > arch.mesh.copies:
            continue
        per_core, free = arch.crossbar.per_core, _free(program, graph, arch, core)
        span = -(-len(units) // per_core)
        if len(free) < span * wanted:
            continue
        made = [*own]
        for first in range(0, span * wanted, span):
            arrays = {unit: free[first + i // per_core] * per_core + i % per_core for i, unit in enumerate(units)}
            made.append(Copy(free[first], arrays))
        yield {**turns, name: tuple(made)}


def _cores_of(copy: Copy, arch: Architecture) -> list[int]:
    return sorted({unit // arch.crossbar.per_core for unit in copy.units.values()})


def _free(program: Program, graph: Graph, arch: Architecture, near: int) -> list[int]:
    """Cores that do nothing and hold nothing, the nearest first: the words are the same for each."""
    used = set(cores(program)) | {
        piece.unit // arch.crossbar.per_core for node in graph.nodes("tile.matmul") for piece in node.op["pieces"]
    }
    return sorted(set(range(arch.mesh.cores)) - used, key=lambda core: (arch.hops(near, core), core))


def _cycles(program: Program, arch: Architecture) -> tuple[dict[int, float], dict[int, Counter[str]]]:
    """By core: cycles of a step, and those of the products of each layer."""
    busy, products = dict[int, float](), defaultdict[int, Counter[str]](Counter)

    def visit(core: int, items: tuple[Item, ...], stride: int) -> float:
        total = 0.0
        for item in items:
            if item.body:
                total += visit(core, item.body, item.integer("stride"))
                continue
            cycles: Any = cost(item, arch, program.data).cycles / stride
            total += cycles
            if item.code.mnemonic == "mvm" and item.loc is not None:
                products[core][program.locs[item.loc].layer] += cycles
        return total

    for number, section in cores(program).items():
        loops = [item for item in decode(section) if item.code.mnemonic == "loop"]
        busy[number] = max((visit(number, loop.body, loop.integer("stride")) for loop in loops), default=0.0)
    return busy, products
