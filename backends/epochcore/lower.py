"""A scheduled tile graph to a program: `lower` walks the nodes, rules emit, `draft.place` gives addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backends.epochcore import lower_array, lower_features, lower_matrix, lower_time
from backends.epochcore.arch import Arch, arch_text
from backends.epochcore.arrangement import fastest
from backends.epochcore.draft import Draft
from backends.epochcore.flow import is_loop, plan_flow
from backends.epochcore.lowering import Lowering, Stream
from backends.epochcore.parameters import param_words
from backends.epochcore.placement import place
from backends.epochcore.request import Form, request_of
from backends.epochcore.residence import on_chip_steps
from backends.epochcore.tokens import synchronised
from isa import Port, Program
from isa.epochcore import EPOCHCORE
from ssmc.diagnostics import UserError
from ssmc.ir import ConstantType, Graph, Node, StreamType, Value

Rule = Callable[[Lowering, Node], None]
RULES: dict[str, Rule] = {
    **lower_features.RULES,
    **lower_time.RULES,
    **lower_array.RULES,
    "tile.matmul": lower_matrix.matmul,
}


def lower(graph: Graph, arch: Arch, *, ideal: bool, forced: Form | None = None) -> Program:
    """The program of a tile graph. With a `forced` form it is one to be timed: its constants are zeros.

    Raises Misfit where the architecture is too small, UserError where an op has no rule (all of them listed) or a
    layer exceeds what an instruction can say.
    """
    _check(graph)
    request = request_of(graph)
    if forced is not None:
        request = replace(request, forced=forced)
    low = Lowering(graph, arch, ideal, plan_flow(graph), Draft(arch, forced is not None), request)
    inputs = _inputs(low)
    low.spilled = _spilled(low)
    outputs = []
    for name in low.flow.order:
        node = graph.node(name)
        low.locate(node)
        if node.op.name == "output":
            outputs.append(_output(low, node))
        elif node.op.name == "input":
            _load_sequence(low, node)
        elif node.op.name != "reverse" and not low.fold(node) and not low.absorbed(node):
            RULES[node.op.name](low, node)
            low.finish(node)
    if forced is not None:
        return _assembled(low, low.draft, inputs, outputs)
    return fastest(low, lambda draft: _assembled(low, draft, inputs, outputs))


def _assembled(low: Lowering, draft: Draft, inputs: Sequence[Port], outputs: Sequence[Port]) -> Program:
    arch, timed = low.arch, low.request.forced is not None
    placed = place(draft, _rates(low))
    on_chip = on_chip_steps(draft, low.streams)
    words = {name: param_words(array, arch.memory.word_bits) for name, array in draft.data.items()}
    section = placed.builder.build()
    moved: Sequence[int] = range(len(section.code))
    if not timed or not arch.array.handover_steps:  # where engines hand over step by step, tokens take no time
        section, moved = synchronised(section, words)
    used = sorted({ins.loc for ins in section.code if ins.loc is not None})
    number = {old: new for new, old in enumerate(used)}
    code = tuple(ins if ins.loc is None else replace(ins, loc=number[ins.loc]) for ins in section.code)
    return Program(
        target=EPOCHCORE.name,
        isa_version=EPOCHCORE.version,
        arch=arch_text(arch),
        sections=(replace(section, code=code),),
        data=draft.data,
        locs=tuple(draft.locs[old] for old in used),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        meta={
            "numbers": "ideal" if low.ideal else "integer" if arch.numbers.fixed else arch.numbers.format,
            "streams": [
                {
                    "kind": s.kind,
                    "words": s.words,
                    "register": s.register,
                    "on_chip": on_chip if s.kind == "spill" else 0,
                    "from_end": s.forward,
                }
                for s in low.streams
            ],
            "rates": [list(map(list, rates)) for rates in low.registers],
            "taps": [
                {**tap, "at": moved[placed.position[step.number]], "address": buffer.address}
                for step, buffer, tap in low.taps
            ],
            "step_by_step": bool(draft.single),
            "lowering": low.notes,
            "forms": {
                name: [{**a.told, "steps": low.request.steps} for a in found] for name, found in low.choices.items()
            },
        },
    )


def _check(graph: Graph) -> None:
    known = {*RULES, "input", "output", "constant", "reverse"}
    unknown = [node for node in graph.nodes() if node.op.name not in known]
    if unknown:
        lines = [f"'{n.op.name}' in node '{n.name}'{_origin(n)}" for n in unknown]
        raise UserError(
            "the graph holds ops that are not at the tile level",
            where="backend 'epochcore'",
            why="\n       ".join(lines),
            hint="run the passes 'tile', 'map-weights' and 'schedule' first",
        )


def _origin(node: Node) -> str:
    return f" (from {', '.join(node.provenance[:3])})" if node.provenance else ""


def _kind(node: Node) -> str:
    if node.op["role"] == "state":
        return "state"
    return "stream" if isinstance(node.types[0], StreamType) else "sequence"


def _inputs(low: Lowering) -> list[Port]:
    ports = []
    for node in low.graph.inputs():
        kind: Any = node.types[0]
        value = Value(node.name)
        register = "n0" if isinstance(kind, StreamType) else "one"
        low.stream_of[value] = low.table_entry(Stream("input", low.words(value), register))
        dtype = "int64" if kind.element == "index" else "float64"
        binding = {"stream": low.stream_of[value], "optional": node.op["role"] == "state"}
        ports.append(Port(node.op["name"], kind.shape, _kind(node), dtype, binding))
    return ports


def _load_sequence(low: Lowering, node: Node) -> None:
    """A value given once a sequence is loaded before anything else."""
    value = Value(node.name)
    if isinstance(node.types[0], StreamType) or not low.graph.users(value):
        return
    row = low.buffers[value] = low.draft.row(low.words(value))
    low.draft.emit(0, "load", dst=row.at(), src=low.stream_of[value], words=row.words, steps="one", mirror=False)


def _output(low: Lowering, node: Node) -> Port:
    value = low.graph.operand(node.name, 0)
    kind: Any = node.types[0]
    if isinstance(kind, ConstantType):
        name = low.draft.constant(f"{node.name}.value", np.asarray(low.constants[value], np.float64))
        return Port(node.op["name"], kind.shape, _kind(node), "float64", {"constant": name})
    low.draft.loc = len(low.draft.locs) - 1
    number = low.store(node, value, "output")
    return Port(node.op["name"], kind.shape, _kind(node), "float64", {"stream": number})


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


def _rates(low: Lowering) -> list[dict[str, Any]]:
    """A `rate` instruction for every lower rate, the higher ones first."""
    rules = []
    for rates, register in low.registers.items():
        if rates:
            stride, offset, windows = rates[-1]
            source = low.registers[rates[:-1]]
            rules.append({"dst": register, "src": source, "stride": stride, "offset": offset, "windows": windows})
    return rules
