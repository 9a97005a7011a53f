"""A scheduled tile graph to a program: `lower` walks the nodes, rules emit, `draft.place` gives addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.lower import (
    arrangement,
    batching,
    chunks,
    crowding,
    dataflow,
    directions,
    loops,
    packing,
    repeats,
    segmentation,
    stacked,
)
from backends.epochcore.lower import array as lower_array
from backends.epochcore.lower import features as lower_features
from backends.epochcore.lower import matrix as lower_matrix
from backends.epochcore.lower import time as lower_time
from backends.epochcore.lower.assembly import Assembly
from backends.epochcore.lower.both_ways import joined_in, together
from backends.epochcore.lower.draft import Draft
from backends.epochcore.lower.flow import MOVES, before_users, is_loop, plan_flow
from backends.epochcore.lower.forms import FORMS, choose
from backends.epochcore.lower.lowering import Lowering, Stream
from backends.epochcore.lower.numbers import Numbers
from backends.epochcore.lower.request import Alternative, Form, Request, request_of
from isa import Port, Program
from ssmc.diagnostics import Misfit, UserError
from ssmc.ir import ConstantType, Graph, Node, StreamType, Value

Rule = Callable[[Lowering, Node], None]
RULES: dict[str, Rule] = {
    **lower_features.RULES,
    **lower_time.RULES,
    **lower_array.RULES,
    "tile.matmul": lower_matrix.matmul,
}


def lower(graph: Graph, arch: Arch, *, ideal: bool) -> Program:
    """The program of a tile graph.

    Raises Misfit where the architecture is too small, UserError where an op has no rule (all of them listed) or a
    layer exceeds what an instruction can say.
    """
    _check(graph)
    graph = stacked.apart(graph)
    found = _decided(graph, arch, ideal, request_of(graph))
    _check_form(found.low)
    return found.finished


def _in_form(graph: Graph, arch: Arch, ideal: bool, form: Form) -> Program:
    """The program of a tile graph whose layers have one form, to be timed: its constants are zeros."""
    _check(graph)
    return _lowered(graph, arch, ideal, replace(request_of(graph), forced=form), {}, Numbers()).to_time


def compared(graph: Graph, arch: Arch, *, ideal: bool) -> dict[str, list[Alternative]]:
    """The alternatives of every system of a tile graph, which is not lowered itself."""
    low = Lowering(graph, arch, ideal, plan_flow(graph), Draft(arch), request_of(graph), _in_form)
    for node in graph.nodes(*FORMS):
        choose(low, node)
    return low.choices


def _decided(graph: Graph, arch: Arch, ideal: bool, request: Request) -> Assembly:
    """The fastest program; of a large model that repeats its layers, the one that is like the fastest for a few."""
    if (short := repeats.shortened(graph, arch)) is not None:
        asked = replace(request, streamed=request.streamed or short.crowded)
        with suppress(Misfit):
            return _likewise(_searched(short.graph, arch, ideal, asked), short, graph, asked)
    return _searched(graph, arch, ideal, request)


def _searched(graph: Graph, arch: Arch, ideal: bool, request: Request) -> Assembly:
    """The program of all that are scheduled in another way that serves best."""
    numbers = Numbers()

    def made(asked: Request) -> Assembly:
        def fastest(other: Graph) -> Assembly:
            return _fastest(other, arch, ideal, asked, numbers if other is graph else Numbers())

        return directions.fastest(fastest, graph, arch, asked)

    return chunks.fastest(packing.fastest(lambda asked: batching.fastest(made, graph, arch, asked), request))


def _likewise(few: Assembly, short: repeats.Shortened, graph: Graph, request: Request) -> Assembly:
    """The whole model, scheduled as the short one. Raises Misfit where it does not fit so."""
    low, like = few.low, dict(short.like)
    if low.graph is not short.graph:
        graph = together(graph, directions.worth(graph, low.arch, request), low.arch)
        like |= _like_joined(graph, low.graph, short.like)
    flows = {name: low.dataflows[other] for name, other in like.items() if other in low.dataflows}

    numbers = Numbers()

    def make(asked: Request) -> Assembly:
        made = _lowered(graph, low.arch, low.ideal, asked, flows, numbers)
        if few.draft is not low.draft:
            made = replace(made, draft=arrangement.with_copies(made.draft))
        made.more = few.more
        made.schedules = tuple(map(short.told, few.schedules))
        assert made.to_time
        return made

    known = not crowding.crowded(graph, low.arch, low.request)
    return crowding.fitting(make, graph, low.arch, low.request, known=known)


def _like_joined(graph: Graph, short: Graph, like: Mapping[str, str]) -> dict[str, str]:
    """By node of a graph whose directions are together, if two have become one there: the one of the short graph whose
    parts are like its parts."""
    known = {parts: name for name, parts in joined_in(short).items()}
    pairs = ((name, known.get((like[a], like[b]))) for name, (a, b) in joined_in(graph).items())
    return {name: other for name, other in pairs if other is not None}


def _check_form(low: Lowering) -> None:
    """Raises UserError where a form is asked for that no layer has."""
    asked = low.request.name
    forms = {one.form.name for found in low.choices.values() for one in found}
    if asked and asked not in {*forms, "state in place", "weights in place"}:
        raise UserError(
            f"no layer of the model has the form '{asked}' on {low.arch.name}",
            why=f"there are: {', '.join(sorted(forms))}" if forms else "no layer has more than one form",
            hint="leave schedule{form=...} out; `ssmc compile --explain` shows the forms of every layer",
        )


def _fastest(graph: Graph, arch: Arch, ideal: bool, request: Request, numbers: Numbers) -> Assembly:
    """The program of one graph, of those that differ in how it is scheduled."""
    cut: dict[Request, bool] = {}

    def lowered(asked: Request, flows: dataflow.Dataflows) -> Assembly:
        low = _lowered(graph, arch, ideal, asked, flows, numbers)
        cut[asked] = bool(low.draft.most)
        return arrangement.fastest(low)

    def made(asked: Request) -> Assembly:
        return dataflow.fastest(lambda flows: lowered(asked, flows))

    def again(asked: Request) -> Assembly:
        return lowered(asked, best.low.dataflows)

    best = crowding.fitting(lambda asked: segmentation.fastest(made, asked, cut), graph, arch, request)
    return loops.fastest(best, again)


def _lowered(
    graph: Graph, arch: Arch, ideal: bool, request: Request, flows: dataflow.Dataflows, numbers: Numbers
) -> Assembly:
    draft = Draft(arch, request.forced is not None, max(1, request.together), numbers)
    flow = plan_flow(graph, request.loops, crowding.most_words(arch, request))
    low = Lowering(graph, arch, ideal, flow, draft, request, _in_form, flows)
    inputs = _inputs(low)
    low.spilled = _spilled(low)
    outputs = _outputs_in_parts(low)
    for name in low.flow.order:
        node = graph.node(name)
        low.locate(node)
        if node.op.name == "output":
            outputs += _output(low, node)
        elif node.op.name == "input":
            _load_sequence(low, node)
        elif node.op.name != "reverse" and not low.fold(node) and not low.absorbed(node):
            RULES[node.op.name](low, node)
            low.finish(node)
    return Assembly(low, low.draft, tuple(inputs), tuple(outputs))


def _check(graph: Graph) -> None:
    known = {*RULES, "input", "output", "constant", "reverse"}
    unknown = [node for node in graph.nodes() if node.op.name not in known]
    if unknown:
        lines = [f"'{n.op.name}' in {n.where}" for n in unknown]
        raise UserError(
            "the graph holds ops that are not at the tile level",
            where="backend 'epochcore'",
            why="\n       ".join(lines),
            hint="run the passes 'tile', 'map-weights' and 'schedule' first",
        )


def _kind(node: Node) -> str:
    if node.op["role"] == "state":
        return "state"
    return "stream" if isinstance(node.types[0], StreamType) else "sequence"


def _inputs(low: Lowering) -> list[Port]:
    ports = []
    for node in sorted(low.graph.inputs(), key=lambda node: stacked.part_of(low.graph, node) is not None):
        kind: Any = node.types[0]
        value = Value(node.name)
        register = "n0" if isinstance(kind, StreamType) else "one"
        part = stacked.part_of(low.graph, node)
        of = None if part is None else (low.stream_of[Value(part.whole)], part.first)
        low.stream_of[value] = low.table_entry(Stream("input", low.words(value), register, part=of))
        if of is not None:
            continue
        dtype = "int64" if kind.element == "index" else "float64"
        binding = {"stream": low.stream_of[value], "optional": node.op["role"] == "state"}
        ports.append(Port(node.op["name"], kind.shape, _kind(node), dtype, binding))
    return ports


def _load_sequence(low: Lowering, node: Node) -> None:
    """A value given once a sequence is loaded before anything else, while the sequence before it still runs.

    Where states are apart it is loaded before the first stage that reads it, into the place where it is stepped, and
    takes no room besides: the load then waits for the sequence before.
    """
    value = Value(node.name)
    if isinstance(node.types[0], StreamType) or not low.graph.users(value):
        return
    row = low.buffers[value] = low.draft.row(low.words(value))
    stage = 0
    if low.flow.most is not None:
        stage = before_users(low.graph, node.name, low.flow.stage)
        if _has_one_reader(low.graph, value):
            low.given_up.add(row)
    low.draft.emit(stage, "load", dst=row.at(), src=low.stream_of[value], words=row.words, steps="one", mirror=False)


def _has_one_reader(graph: Graph, value: Value) -> bool:
    """Whether a value, under whatever shape, is read once."""
    users = graph.users(value)
    while len(users) == 1 and graph.op(users[0][0]).name in MOVES:
        users = graph.users(Value(users[0][0]))
    return len(users) == 1


def _outputs_in_parts(low: Lowering) -> list[Port]:
    """Outputs whose parts are stored one by one."""
    ports = []
    for name, whole in stacked.wholes(low.graph).items():
        number = low.table_entry(Stream("output", prod(whole.shape), "one"))
        low.stream_of[Value(name)] = number
        kind = "state" if whole.role == "state" else "sequence"
        ports.append(Port(whole.name, whole.shape, kind, "float64", {"stream": number}))
    return ports


def _output(low: Lowering, node: Node) -> list[Port]:
    """Store an output; its port, if it has one of its own."""
    value = low.graph.operand(node.name, 0)
    kind: Any = node.types[0]
    if isinstance(kind, ConstantType):
        name = low.draft.constant(f"{node.name}.value", np.asarray(low.constants[value], np.float64))
        return [Port(node.op["name"], kind.shape, _kind(node), "float64", {"constant": name})]
    low.draft.loc = len(low.draft.locs) - 1
    part = stacked.part_of(low.graph, node)
    if part is not None:
        low.store(node, value, "output", (low.stream_of[Value(part.whole)], part.first))
        return []
    number = low.store(node, value, "output")
    return [Port(node.op["name"], kind.shape, _kind(node), "float64", {"stream": number})]


def _spilled(low: Lowering) -> frozenset[Value]:
    """Streams that a loop other than their own reads, or that are read from their end."""
    found = set()
    for name, stage in low.flow.stage.items():
        if not is_loop(stage) or low.graph.op(name).name == "reverse":
            continue
        for value in low.graph.operands(name):
            if value is None or not isinstance(low.graph.type(value), StreamType):
                continue
            source, mirror = low.view(value)
            if low.flow.stage[source.node] != stage or mirror:
                found.add(source)
    return frozenset(value for value in found if low.graph.op(value.node).name != "input")
