"""What the array keeps of a matrix product, weights or results, and in which order: by cost of the whole program.

* weights: a tile of the weights after the other, those of the same columns first. A pass adds to what the one before
  has left, which short sequences wait for: their last sum is on its way through the array.
* weights-by-rows: tiles of the same rows first, so that there are passes over other columns in between.
* results: an element sums up a result to its end, over more terms than the array has rows.

A pass with weights overlaps with its neighbours, for which their parameters are shifted in meanwhile. So a layer by
itself says little: closed forms name layers for which another dataflow could pay, these are compiled with it, group
after group of like ones, and what makes the whole program faster stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from backends.epochcore.arch import Arch, Array
from backends.epochcore.clock.gemm import ceil_div, output_fold
from backends.epochcore.lower import objective
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.lowering import Lowering
from backends.epochcore.lower.matrix import pieces_of
from backends.epochcore.lower.request import DATAFLOWS
from isa import Program
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import Node, Piece, Value

Dataflows = Mapping[str, str]  # by node; those that are not named keep their weights
PHRASES = {"weights-by-rows": "weights in place, rows first", "results": "results in place"}
LEAST_GAIN = 5e-4  # of the program's cycles, that closed forms must promise


@dataclass(frozen=True)
class _Group:
    """Like matrices, another dataflow that they may have, and the cycles that closed forms say it saves."""

    nodes: tuple[str, ...]
    dataflow: str
    gain: int


def fastest(compiled: Callable[[Dataflows], Assembly]) -> Assembly:
    """The program in which every matrix product has the dataflow that serves the whole program best, or the one that
    the pipeline asks for. What was compared is in the program's data, as `schedules`.

    Raises UserError where the dataflow asked for is none, or none of the machine's.
    """
    best = compiled({})
    asked = best.low.request.dataflow
    if asked:
        _check(asked, best.low.arch)
        nodes = [node for node in best.low.graph.nodes() if asked in _others(best.low, node)]
        return compiled({node.name: asked for node in nodes}) if nodes else best
    groups = _groups(best.low, best.to_time)
    if not groups:
        return best
    tried, chosen, flows = [_told(best, "weights in place")], 0, dict[str, str]()
    costs = [best.costs]
    for group in groups:
        if group.gain < LEAST_GAIN * best.costs[0]:
            continue
        changed = {**flows, **dict.fromkeys(group.nodes, group.dataflow)}
        with suppress(Misfit):
            other = compiled(changed)
            costs.append(other.costs)
            if objective.best(costs, best.low.request.objective) == len(tried):
                best, flows, chosen = other, changed, len(tried)
            tried.append(_told(other, _named(changed)))  # not the program itself: many of a large model are too many
            del other
    if len(tried) > 1:
        best.schedules = tuple({**told, "chosen": number == chosen} for number, told in enumerate(tried))
    return best


def _told(made: Assembly, name: str) -> dict[str, Any]:
    """Costs, and how residuals are held, too, where there was a choice."""
    every = [name, *(str(other["schedule"]) for other in made.schedules if other["chosen"])]
    return made.told("matrix products", "; ".join(every), chosen=False)


def _check(asked: str, arch: Arch) -> None:
    if asked not in DATAFLOWS:
        raise UserError(f"no dataflow is called '{asked}'", hint=f"dataflows: {', '.join(DATAFLOWS)}")
    mode = "mac.os" if asked == "results" else "mac"
    if mode not in arch.array.modes:
        raise UserError(
            f"the array cannot keep {asked.partition('-')[0]} in place",
            where=f"architecture '{arch.name}', array.modes",
            hint=f"add the mode {mode} to it, or leave the dataflow to the compiler",
        )


def _named(flows: Dataflows) -> str:
    by_flow: dict[str, list[str]] = {}
    for node, flow in flows.items():
        by_flow.setdefault(flow, []).append(node)
    return "; ".join(f"{PHRASES[flow]}: {', '.join(nodes)}" for flow, nodes in by_flow.items())


def _others(low: Lowering, node: Node) -> list[str]:
    """Other dataflows than the usual one that a node can have: a matrix that is multiplied with one vector a step."""
    if node.op.name != "tile.matmul" or Value(node.name) in low.constants:
        return []
    if low.words(low.graph.operand(node.name, 0)) != node.op["weight"].shape[0] or "mac" not in low.arch.array.modes:
        return []
    return ["weights-by-rows", *(["results"] if "mac.os" in low.arch.array.modes else [])]


def _groups(low: Lowering, program: Program) -> list[_Group]:
    """Groups of like matrices with another dataflow that closed forms think shorter, those with most to gain first."""
    like: dict[tuple[Any, ...], list[Node]] = {}
    for node in low.graph.nodes():
        if _others(low, node):
            shape = tuple((p.k0, p.k1, p.n0, p.n1) for p in node.op["pieces"])
            like.setdefault((shape, *_steps(low, program, node)), []).append(node)
    groups = []
    for (_, steps, times), nodes in like.items():
        usual = _cycles(low, nodes[0], "weights", steps)
        for flow in _others(low, nodes[0]):
            gain = (usual - _cycles(low, nodes[0], flow, steps)) * times * len(nodes)
            if gain > 0:
                groups.append(_Group(tuple(node.name for node in nodes), flow, gain))
    return sorted(groups, key=lambda group: -group.gain)


def _steps(low: Lowering, program: Program, node: Node) -> tuple[int, int]:
    """Vectors that a matrix is multiplied with at once, those of a chunk, and how often that is."""
    rates = low.flow.rates.get(Value(node.name))
    if rates is None:
        return 1, 1
    room = min(int(ins["limit"]) for ins in program.sections[0].code if ins.mnemonic == "chunks")
    steps, every = min(room, low.request.steps), prod(stride for stride, *_ in rates)
    return ceil_div(steps, every), ceil_div(low.request.steps, steps)


def _cycles(low: Lowering, node: Node, dataflow: str, steps: int) -> int:
    """Cycles of the products of so many vectors with one matrix, with nothing else on the array and the first weights
    in it.

    Where engines hand over step by step, a pass that adds to results begins when the first of them are there.
    """
    array, pieces = low.arch.array, pieces_of(low, node, dataflow)
    rows, cols, through = array.rows, array.cols, array.rows + array.cols - 2 + array.mac_depth
    if dataflow == "results":
        return sum(_results_in_place(array, p, steps) for p in pieces)
    weights = rows * ceil_div(cols, array.port_words_in)
    late = min(steps, array.handover_steps or 1)
    begin, end, there = 0, 0, dict[int, int]()  # by column, when the first sums of the last pass are there
    for p in pieces:
        ports = max(ceil_div(p.k1 - p.k0, array.port_words_in), ceil_div(p.n1 - p.n0, array.port_words_out))
        begin = max(end, begin + weights if end else 0, there.get(p.n0, 0) if array.handover_steps else 0)
        begin += 0 if array.shadow else weights
        end = begin + steps * ports + (0 if array.shadow else through)
        there[p.n0] = begin + late * ports + through
    return end + through


def _results_in_place(array: Array, p: Piece, steps: int) -> int:
    """Cycles of one pass (see `cost_array`)."""
    used = p.n1 - p.n0
    gather = ceil_div(max(min(array.rows, steps), used), array.port_words_in)
    out = array.rows * ceil_div(used, array.port_words_out)
    fold = output_fold(1 + (p.k1 - p.k0 - 1) * gather, array.rows, array.cols) + gather - 1
    return (ceil_div(steps, array.rows) - 1) * max(fold, out + array.cols - 1) + fold + out
