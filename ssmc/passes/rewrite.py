"""Local surgery on a graph that keeps names, values and provenance together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssmc.ir import Graph, Node, Op, Tensor, Value
from ssmc.ir.op import Array


def sole_user(graph: Graph, value: Value) -> tuple[str, int] | None:
    """The one (node, slot) that uses a value, None where there is none or more."""
    return None if graph.is_shared(value) else next(iter(graph.users(value)), None)


def constant_of(graph: Graph, value: Value | None) -> Array | None:
    """The array of a value that is a constant node."""
    if value is None or graph.op(value.node).name != "constant":
        return None
    array: Array = graph.op(value.node)["value"].array
    return array


def constant_sources(graph: Graph, node: Node) -> list[str]:
    """Where the constants among a node's operands came from."""
    operands = [value for value in graph.operands(node.name) if value is not None]
    constants = [graph.node(value.node) for value in operands if graph.op(value.node).name == "constant"]
    return [source for constant in constants for source in constant.provenance]


def add_constant(graph: Graph, array: Array, like: Node, suffix: str) -> Value:
    """A constant that stands for a part of node `like`."""
    attrs = {"value": Tensor(array)}
    return graph.add("constant", [], attrs, name=like.name + suffix, provenance=like.provenance)


def recast(graph: Graph, name: str, op: Op, operands: Sequence[Value | None], provenance: Sequence[str] = ()) -> None:
    """Let node `name` be `op` on `operands`; its value must stay what it was, or nobody may use it."""
    for slot in range(max(len(graph.operands(name)), len(operands))):
        graph.connect(name, slot, operands[slot] if slot < len(operands) else None)
    graph.set_op(name, op)
    graph.add_provenance(name, *provenance)


def absorb(graph: Graph, producer: Node, consumer: Node, op: Op, operands: Sequence[Value | None]) -> None:
    """`consumer` becomes `op` on `operands` and does `producer`'s work too, which goes.

    The producer's later results (last states) become the consumer's.
    """
    recast(graph, consumer.name, op, operands, producer.provenance)
    for index in range(1, len(producer.types)):
        graph.replace_uses(Value(producer.name, index), Value(consumer.name, index))
    graph.remove(producer.name)


def bypass(graph: Graph, name: str, value: Value) -> None:
    """Let the users of node `name` read `value`, which is the same, and remove the node; nothing forgets its origin."""
    node = graph.node(name)
    heirs = [value.node] if graph.op(value.node).name != "input" else [user for user, _ in graph.users(Value(name))]
    graph.replace_uses(Value(name), value)
    for heir in heirs:
        graph.add_provenance(heir, *node.provenance)
    graph.remove(name)


def sweep(graph: Graph, visit: Callable[[Graph, Node], bool]) -> bool:
    """Visit node after node, in topological order and again, until a sweep changes nothing; whether any did."""
    changed, ever = True, False
    while changed:
        changed = False
        for node in graph.nodes():
            changed |= visit(graph, node)
        ever |= changed
    return ever


def rewritten(graph: Graph, op: str, visit: Callable[[Graph, Node], bool]) -> Graph:
    """A copy in which every node of `op` was visited once, without what nobody reads any more; the graph itself where
    no visit changed anything."""
    out = graph.copy()
    changed = [visit(out, out.node(node.name)) for node in graph.nodes(op)]
    if not any(changed):
        return graph
    out.prune()
    return out
