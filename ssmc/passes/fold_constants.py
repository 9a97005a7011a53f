"""What is known before any input comes is computed now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ssmc.ir import Graph, Node, Op, StreamType, Tensor, Value
from ssmc.ir.interpreter import run_node
from ssmc.passes.base import Context, Pass
from ssmc.passes.rewrite import bypass, constant_of, recast, sweep

EDGES = ("input", "output", "constant")


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute constant nodes, and remove those that change nothing.

    before  %d = unary(%log_d) {fn = "exp"}      %z = binary(%y, %zero) {fn = "add"}
    after   %d = constant() {value = ...}        %z is %y

    Also: chains of reshapes and of transposes become one; elementwise ops read a constant or a sequence value
    itself where it was spread over the steps before; what no output needs goes.
    """

    name = "fold-constants"

    def run(self, graph: Graph, context: Context) -> Graph:
        out = graph.copy()
        changed = sweep(out, _visit)
        return out if out.prune() or changed else graph


def _visit(graph: Graph, node: Node) -> bool:
    """Fold one node if it can be; whether it was."""
    if node.name not in graph or node.op.name in EDGES:
        return False
    operands = [value for value in graph.operands(node.name) if value is not None]
    if operands and all(constant_of(graph, value) is not None for value in operands):
        arrays = [constant_of(graph, value) for value in operands]
        results = run_node(node, arrays, [graph.type(value) for value in operands])
        origin = [source for value in operands for source in graph.node(value.node).provenance]
        recast(graph, node.name, Op("constant", {"value": Tensor(results[0])}), [], origin)
        return True
    same = next(_same_as(graph, node), None)
    if same is not None:
        bypass(graph, node.name, same)
        return True
    return node.op.name in RULES and RULES[node.op.name](graph, node)


def _same_as(graph: Graph, node: Node) -> Iterator[Value]:
    """Operands that the node's only result equals, in value and type."""
    kinds = [(value, graph.type(value)) for value in graph.operands(node.name) if value is not None]
    alike = [value for value, kind in kinds if kind == node.types[0]]
    match node.op.name:
        case "unary" if node.op["fn"] == "identity":
            yield from alike
        case "binary":
            yield from (value for value in alike if _neutral(graph, node, value))
        case "reshape" | "broadcast" | "spread":
            yield from (value for value in alike if value == graph.operand(node.name, 0))
        case "slice" if node.op["step"] == 1:
            yield from alike
        case "concat" if len(kinds) == 1:
            yield from alike
        case "transpose" if list(node.op["permutation"]) == sorted(node.op["permutation"]):
            yield from alike
        case "reverse":
            inner = graph.node(graph.operand(node.name, 0).node)
            if inner.op.name == "reverse":
                graph.add_provenance(node.name, *inner.provenance)
                yield graph.operand(inner.name, 0)


def _neutral(graph: Graph, node: Node, value: Value) -> bool:
    """Whether a binary op gives back its operand `value`: x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1."""
    a, b = graph.operand(node.name, 0), graph.operand(node.name, 1)
    constant = constant_of(graph, b if value == a else a)
    if constant is None:
        return False
    match node.op["fn"]:
        case "add":
            return not constant.any()
        case "mul":
            return bool((constant == 1).all())
        case "sub":
            return value == a and not constant.any()
        case "div":
            return value == a and bool((constant == 1).all())
    return False


def _join_reshapes(graph: Graph, node: Node) -> bool:
    inner = graph.node(graph.operand(node.name, 0).node)
    if inner.op.name != "reshape":
        return False
    recast(graph, node.name, node.op, [graph.operand(inner.name, 0)], inner.provenance)
    return True


def _join_transposes(graph: Graph, node: Node) -> bool:
    inner = graph.node(graph.operand(node.name, 0).node)
    if inner.op.name != "transpose":
        return False
    order = tuple(inner.op["permutation"][i] for i in node.op["permutation"])
    recast(graph, node.name, node.op.with_attrs(permutation=order), [graph.operand(inner.name, 0)], inner.provenance)
    return True


def _read_unspread(graph: Graph, node: Node) -> bool:
    """An elementwise op meets sequence values and constants at every step by itself, if another operand is a stream."""
    operands = [value for value in graph.operands(node.name) if value is not None]
    spread = [value for value in operands if graph.op(value.node).name == "spread"]
    stays = [v for v in operands if isinstance(graph.type(v), StreamType) and v not in spread]
    if not spread or not stays:
        return False
    origin = [source for value in spread for source in graph.node(value.node).provenance]
    plain = [graph.operand(value.node, 0) if value in spread else value for value in operands]
    recast(graph, node.name, node.op, plain, origin)
    return True


RULES: dict[str, Callable[[Graph, Node], bool]] = {
    "reshape": _join_reshapes,
    "transpose": _join_transposes,
    **dict.fromkeys(("binary", "gate", "select"), _read_unspread),
}
