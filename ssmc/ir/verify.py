"""Is a graph well formed? Every problem is found and told at once, with the node and where it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx

from ssmc.diagnostics import UserError
from ssmc.ir.graph import Graph, Node, Value, named
from ssmc.ir.op import OpSpec
from ssmc.ir.ops.onnx_op import is_onnx
from ssmc.ir.table import spec_of
from ssmc.ir.types import TensorType, show_type

GONE_AT_TILE_LEVEL = frozenset({"linear", "ssm", "liquid_ssm", "recurrence", "complex", "real", "imag"})
PHASES = ("before", "steps", "after")


@dataclass(frozen=True)
class Problem:
    """What is wrong with one node (or, with an empty `node`, with the graph as a whole)."""

    node: str
    text: str
    provenance: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.node:
            return self.text
        return f"{named(self.node, self.provenance)}: {self.text}"


def verify(graph: Graph, *, where: str = "") -> None:
    """Raise one UserError that lists every problem of `graph`; `where` says whose output it is."""
    found = problems(graph)
    if found:
        count = f"{len(found)} problems" if len(found) > 1 else "1 problem"
        listed = "\n    ".join(str(problem) for problem in found)
        raise UserError(f"the graph '{graph.name}' is not well formed: {count}", where=where, why=f"\n    {listed}")


def problems(graph: Graph) -> list[Problem]:
    """Every problem of `graph`, in the order of its nodes.

    Cycles; nodes that an edge names but nobody added; unknown ops; missing, surplus or dangling operands;
    ill-formed attributes; types that differ from what the op's rule says; names given twice; ops and complex
    values that do not belong to the tile level; places against the order of the data.
    """
    found = [*_structure(graph)]
    tiled = any(_node(graph, name) and graph.op(name).name.startswith("tile.") for name in graph.net)
    for name in graph.net:
        node = _node(graph, name)
        if node is None:
            found.append(Problem(name, "an edge names this node, but it was never added"))
            continue
        texts = [*_operands_and_types(graph, node), *_placing(graph, node)]
        if tiled:
            texts += _tile_level(node)
        found += [Problem(name, text, node.provenance) for text in texts]
        if is_onnx(node.op):
            for attribute, body in node.op.get("regions", {}).items():
                inner = (Problem(f"{name}.{attribute}", str(p), node.provenance) for p in problems(body))
                found.extend(inner)
    return found


def _node(graph: Graph, name: str) -> Node | None:
    node: Node | None = graph.net.nodes[name].get("data")
    return node


def _structure(graph: Graph) -> Iterator[Problem]:
    if not nx.is_directed_acyclic_graph(graph.net):  # in linear time, unlike the search for a cycle
        cycle = nx.find_cycle(graph.net)
        around = " -> ".join([edge[0] for edge in cycle] + [cycle[0][0]])
        yield Problem("", f"a cycle: {around}")
    for kind in ("input", "output"):
        nodes = [node for name in graph.net if (node := _node(graph, name)) and node.op.name == kind]
        for name, count in Counter(str(node.op.get("name")) for node in nodes).items():
            if count > 1:
                yield Problem("", f"{count} nodes are the {kind} '{name}'")
        if kind == "output" and not nodes:
            yield Problem("", "no output: nothing asks for a result")


def _operands_and_types(graph: Graph, node: Node) -> Iterator[str]:
    try:
        spec = spec_of(node.op.name)
    except KeyError as error:
        yield str(error.args[0])
        return
    broken = False
    for text in _dangling(graph, node.name):
        broken = True
        yield text
    if broken or is_onnx(node.op):
        return
    try:
        spec.complete(node.op.attrs)
    except ValueError as error:
        yield str(error)
        return
    yield from _types(graph, node, spec)


def _dangling(graph: Graph, name: str) -> Iterator[str]:
    slots: Counter[int] = Counter()
    for source, _, slot, data in graph.net.in_edges(name, keys=True, data=True):
        slots[slot] += 1
        before = _node(graph, source)
        if before is not None and not 0 <= data["index"] < len(before.types):
            yield f"operand {slot} is result {data['index']} of '{source}', which has {len(before.types)}"
        if before is None:
            yield f"operand {slot} comes from '{source}', which does not exist"
    yield from (f"operand {slot} is given {count} times" for slot, count in slots.items() if count > 1)


def _types(graph: Graph, node: Node, spec: OpSpec) -> Iterator[str]:
    operands: list[Value | None] = graph.operands(node.name)
    if spec.variadic and None in operands:
        yield f"operand {operands.index(None)} is missing"
        return
    try:
        inferred = graph.infer(node.op, spec, operands)
    except Exception as error:  # a type rule may fail in any way on operands that it was not made for
        yield f"op '{node.op.name}' does not fit its operands: {error}"
        return
    if inferred != node.types:
        has, should = (", ".join(map(show_type, types)) for types in (node.types, inferred))
        yield f"has the type {has}, but op '{node.op.name}' gives {should}"


def _tile_level(node: Node) -> Iterator[str]:
    if node.op.name in GONE_AT_TILE_LEVEL or is_onnx(node.op):
        yield f"op '{node.op.name}' does not belong to the tile level"
    elif node.op.name not in ("input", "output"):
        for kind in node.types:
            if not isinstance(kind, TensorType) and kind.element == "complex":
                yield "a complex value at the tile level, where complex vectors are halves re|im"
                return


def _placing(graph: Graph, node: Node) -> Iterator[str]:
    place = node.place
    if place is None:
        return
    if place.phase not in PHASES:
        yield f"phase '{place.phase}' is none of {', '.join(PHASES)}"
    for source in graph.net.predecessors(node.name):
        before = _node(graph, source)
        if before is None or before.place is None or before.place.phase not in PHASES or place.phase not in PHASES:
            continue
        late = PHASES.index(before.place.phase) > PHASES.index(place.phase)
        if late and before.place.phase == "after" and before.place.order < place.order:
            continue  # in a later loop
        same = (before.place.unit, before.place.phase) == (place.unit, place.phase)
        if late or (same and before.place.order >= place.order):
            yield f"runs at {place}, before its operand '{source}' at {before.place}"
