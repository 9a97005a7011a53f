"""A flat view of an ONNX-level graph for walking it many times: calls in order, constants by value."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from onnx import helper

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
            call = Call(
                node.op.name.removeprefix("onnx."),
                node.op,
                tuple(graph.operands(name)),
                tuple(graph.results(name)),
                node.provenance,
                len(listing.calls),
                tuple(getattr(kind, "dtype", "?") for kind in node.types),
            )
            listing.calls.append(call)
            for value in call.results:
                listing.producer[value] = call
    return listing
