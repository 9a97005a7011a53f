"""Recurrences whose decay is a constant plus what is linear in the data, as Liquid-S4's (arXiv 2209.12951)."""

from __future__ import annotations

from ssmc.ir.graph import Graph, Node, Value

LINEAR = frozenset(
    ["linear", "take", "concat", "slice", "reshape", "transpose", "broadcast", "complex", "real", "imag", "spread"]
)


def is_liquid(graph: Graph, node: Node) -> bool:
    """Is it `x <- (a + b u) x + c u`: are the decay and the drive of a recurrence affine in the same streams u?"""
    decay, drive = (_sources(graph, graph.operand(node.name, slot)) for slot in range(2))
    return bool(decay) and decay == drive


def _sources(graph: Graph, value: Value) -> frozenset[Value]:
    """The streams that a value is an affine function of: as far back as every op is affine."""
    found: set[Value] = set()
    waiting, met = [value], {value}
    while waiting:
        here = waiting.pop()
        if _is_constant(graph, here):
            continue
        if not _is_affine(graph, graph.node(here.node)):
            found.add(here)
            continue
        before = {operand for operand in graph.operands(here.node) if operand is not None} - met
        met |= before
        waiting += before
    return frozenset(found)


def _is_affine(graph: Graph, node: Node) -> bool:
    fixed = [value is not None and _is_constant(graph, value) for value in graph.operands(node.name)]
    match node.op.name, node.op.get("fn"):
        case "binary", "add" | "sub":
            return True
        case "binary", "mul":
            return any(fixed)
        case "binary", "div":
            return fixed[1]
        case "unary", "neg":
            return True
        case name, _:
            return name in LINEAR


def _is_constant(graph: Graph, value: Value) -> bool:
    while graph.op(value.node).name == "spread":
        value = graph.operand(value.node, 0)
    return graph.op(value.node).name == "constant"
