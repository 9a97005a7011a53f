"""A flat view of an ONNX-level graph for walking it many times: calls in order, constants by value."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from onnx import defs, helper

from ssmc.frontend.source.collection import without_collection
from ssmc.ir.graph import Graph, Value
from ssmc.ir.op import Array, Op


class MissingAttribute(KeyError):
    """A node lacks an attribute that its op cannot do without."""


class Attributes(dict[str, Any]):
    """Attributes of a node by name. Looking up one that is not there raises MissingAttribute."""

    def __missing__(self, name: str) -> Any:
        raise MissingAttribute(name)


@dataclass(frozen=True, eq=False)
class Call:
    """One ONNX node: `kind` is its op type, `operands` None where absent, `position` its place in the order."""

    kind: str
    op: Op
    operands: tuple[Value | None, ...]
    results: tuple[Value, ...]
    provenance: tuple[str, ...]
    position: int
    dtypes: tuple[str, ...]

    @cached_property
    def attrs(self) -> Attributes:
        """Attributes of the node, without its subgraphs."""
        return Attributes({a.name: helper.get_attribute_value(a) for a in self.op["node"].attribute})

    @property
    def name(self) -> str:
        return self.provenance[0] if self.provenance else self.results[0].node


@dataclass(eq=False)
class Listing:
    """`inputs` and `outputs` by their ONNX names, in the file's order. Large constants may be float32."""

    calls: list[Call] = field(default_factory=list)
    constants: dict[Value, Array] = field(default_factory=dict)
    formats: dict[Value, str] = field(default_factory=dict)  # how the file stores its constants
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    producer: dict[Value, Call] = field(default_factory=dict)
    tables: dict[Value, Any] = field(default_factory=dict)  # large arrays of constants alone, to be had in parts
    off: dict[Value, float] = field(default_factory=dict)  # by how much the file's tables are, of which these are exact
    folded: set[Value] = field(default_factory=set)  # other large ones, which were needed for a constant only
    around: int = 1  # trips of the loops that this is the body of, which whatever runs it may make

    def needed(self, wanted: Iterable[Value], given: Collection[Value]) -> list[Call]:
        """Calls that `wanted` depends on, in order, not looking behind the values in `given`."""
        found: dict[int, Call] = {}
        waiting = [value for value in wanted if value not in given]
        while waiting:
            value = waiting.pop()
            call = self.producer.get(value)
            if call is None or call.position in found or value in self.constants:
                continue
            found[call.position] = call
            waiting.extend(v for v in call.operands if v is not None and v not in given)
        return [found[position] for position in sorted(found)]

    def maker(self, value: Value | None) -> Call | None:
        """The call that makes a value; None where none does, or where an operand is absent."""
        return None if value is None else self.producer.get(value)

    def influenced(self, sources: Collection[Value]) -> set[Value]:
        """Values that depend on any of `sources` (these included)."""
        found = set(sources)
        for call in self.calls:
            if any(value in found for value in call.operands):
                found.update(call.results)
        return found

    @cached_property
    def users(self) -> dict[Value, list[Call]]:
        table: dict[Value, list[Call]] = {}
        for call in self.calls:
            for value in dict.fromkeys(v for v in call.operands if v is not None):
                table.setdefault(value, []).append(call)
        return table


@without_collection()
def list_calls(graph: Graph) -> Listing:
    """The flat view of `graph`."""
    listing = Listing()
    for name in graph.order():
        node = graph.node(name)
        if node.op.name == "input":
            listing.inputs[node.op["name"]] = Value(name)
        elif node.op.name == "constant":
            listing.constants[Value(name)] = node.op["value"].stored
            listing.formats[Value(name)] = getattr(node.types[0], "dtype", "?")
        elif node.op.name == "output":
            listing.outputs[node.op["name"]] = graph.operand(name, 0)
        else:
            dtypes = tuple(getattr(kind, "dtype", "?") for kind in node.types)
            op, operands = node.op, tuple(graph.operands(name))
            if op.name == "onnx.CastLike" and (like := _dtype(graph, operands[1])) is not None:
                op, operands, dtypes = _cast(op, like), operands[:1], (like,)
            kind, results = op.name.removeprefix("onnx."), tuple(graph.results(name))
            call = Call(kind, op, operands, results, node.provenance, len(listing.calls), dtypes)
            listing.calls.append(call)
            for value in call.results:
                listing.producer[value] = call
    return listing


def _dtype(graph: Graph, value: Value | None) -> str | None:
    """What numbers a value holds, if it or what it is made of alike says so."""
    while value is not None and value.index == 0:
        node = graph.node(value.node)
        told = getattr(node.types[0], "dtype", "?")
        if told != "?":
            return str(told)
        kind = node.op.name.removeprefix("onnx.")
        if not node.op.name.startswith("onnx.") or not defs.has(kind):
            return None
        schema = defs.get_schema(kind)
        if not schema.inputs or schema.inputs[0].type_str != schema.outputs[0].type_str:
            return None
        value = graph.operands(node.name)[0]
    return None


def _cast(op: Op, dtype: str) -> Op:
    """A CastLike, whose second operand is there for its type only, as the Cast that it is."""
    node = helper.make_node("Cast", ["x"], ["y"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    return Op("onnx.Cast", {**op.attrs, "node": node})
