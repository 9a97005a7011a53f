"""States of several layers in one tensor: each layer's part of it is a stream of its own, so that it alone is loaded
before the layer and stored after it.

before  %h = input()    %a = take(%h) {axis = -2, index = 0}   ...   output(concat(%x, %y))
after   %a = input(): the first words of %h   ...   output(%x), output(%y): the words of the one output, in order
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ssmc.ir import Graph, Node, SequenceType, Value
from ssmc.ir.interpreter import run_node

TAKEN = ("take", "slice")
WHOLES, PARTS = "wholes", "parts"  # attributes of a graph: outputs in parts by name; parts by node


@dataclass(frozen=True)
class Whole:
    """An output that is stored in parts."""

    name: str
    shape: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Part:
    """Words from `first` on of the input node, or the output, `whole`."""

    whole: str
    first: int


def apart(graph: Graph) -> Graph:
    """The graph with values of a sequence in parts, inputs that are only read and outputs that are only put together
    so; the same graph where there are none."""
    out, parts, wholes = graph.copy(), dict[str, Part](), dict[str, Whole]()
    for node in graph.inputs():
        for user, first in _taken(graph, node):
            made = graph.node(user)
            attrs = {"name": f"{node.op['name']}.{first}", "type": made.types[0], "role": node.op["role"]}
            name = out.add("input", [], attrs, name=f"{user}.given", provenance=made.provenance)
            out.replace_uses(Value(user), name)
            out.remove(user)
            parts[name.node] = Part(node.name, first)
    for node in graph.outputs():
        given = _given(graph, node)
        if given:
            out.remove(node.name)
            kind: Any = graph.type(graph.operand(node.name, 0))
            wholes[node.name] = Whole(node.op["name"], kind.shape, node.op["role"])
        for value, first in given:
            attrs = {"name": f"{node.op['name']}.{first}", "role": node.op["role"]}
            name = out.add("output", [value], attrs, name=f"{node.name}.{first}", provenance=node.provenance)
            parts[name.node] = Part(node.name, first)
    if not parts:
        return graph
    out.prune()
    out.attributes |= {PARTS: parts, WHOLES: wholes}
    return out


def part_of(graph: Graph, node: Node) -> Part | None:
    """Which part of a stored tensor an input or output node is, None where it is a whole one."""
    found: dict[str, Part] = graph.attributes.get(PARTS, {})
    return found.get(node.name)


def wholes(graph: Graph) -> dict[str, Whole]:
    """The outputs that are stored in parts, by what their parts call them."""
    found: dict[str, Whole] = graph.attributes.get(WHOLES, {})
    return found


def _taken(graph: Graph, node: Node) -> Sequence[tuple[str, int]]:
    """Who reads an input that is given once a sequence, and from which word on; nobody where not every reader takes
    words in a row that no other one takes."""
    value, kind = Value(node.name), node.types[0]
    users = [user for user, _ in graph.users(value)]
    if not isinstance(kind, SequenceType) or any(graph.op(user).name not in TAKEN for user in users):
        return ()
    words, found, free = np.arange(float(prod(kind.shape))), list[tuple[str, int]](), np.ones(prod(kind.shape), bool)
    for user in users:
        (seen,) = run_node(graph.node(user), [words.reshape(1, *kind.shape)], [kind])
        taken = seen.ravel().astype(int)
        if not np.array_equal(taken, np.arange(taken[0], taken[0] + taken.size)) or not free[taken].all():
            return ()
        free[taken] = False
        found.append((user, int(taken[0])))
    return found


def _given(graph: Graph, node: Node) -> Sequence[tuple[Value, int]]:
    """What an output of a sequence is put together of, in the order of its words; nothing where it is not."""
    value = graph.operand(node.name, 0)
    while graph.op(value.node).name == "reshape" and not graph.is_shared(value):
        value = graph.operand(value.node, 0)
    joined = graph.node(value.node)
    values = [v for v in graph.operands(joined.name) if v is not None]
    kinds: list[Any] = [graph.type(v) for v in values]
    if joined.op.name != "concat" or graph.is_shared(value) or not all(isinstance(k, SequenceType) for k in kinds):
        return ()
    starts = np.cumsum([0, *(prod(kind.shape) for kind in kinds)]).tolist()
    rows = [np.arange(float(a), float(b)) for a, b in pairwise(starts)]
    arrays = [row.reshape(1, *kind.shape) for row, kind in zip(rows, kinds, strict=True)]
    (seen,) = run_node(joined, arrays, kinds)
    in_order = np.array_equal(seen.ravel(), np.arange(starts[-1]))
    return list(zip(values, starts, strict=False)) if in_order else ()
