"""The graph: nodes are ops, edges are values flowing into operand slots (a networkx.MultiDiGraph)."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

import networkx as nx

from ssmc.ir.op import Op, OpSpec
from ssmc.ir.table import spec_of
from ssmc.ir.types import ValueType

_Adjacency: TypeAlias = dict[str, dict[str, dict[int, dict[str, Any]]]]  # node -> neighbour -> slot -> edge


class Value(NamedTuple):
    """Result `index` of node `node`."""

    node: str
    index: int = 0  # type: ignore[assignment]  # hides tuple.index: a tuple for the speed of its hash

    def __str__(self) -> str:
        return f"%{self.node}" if self.index == 0 else f"%{self.node}:{self.index}"


@dataclass(frozen=True)
class Place:
    """Where and when a node runs: set by the schedule pass, read by the lowering.

    `unit` is a core (cim) or an engine (epochcore), `order` the position in program order,
    `phase` one of "before", "steps", "after" (once before the time loop, in it, once after it). Where a machine sweeps
    a sequence several times there are further steps behind what is "after" the first loop, by their order.
    """

    unit: int
    order: int
    phase: str


@dataclass(frozen=True)
class Node:
    """A node: its op, the types of its results, the ONNX nodes it came from, and its place once it has one."""

    name: str
    op: Op
    types: tuple[ValueType, ...]
    provenance: tuple[str, ...] = ()
    place: Place | None = None

    @property
    def where(self) -> str:
        """The node as messages name it."""
        return named(self.name, self.provenance)


def named(name: str, provenance: Sequence[str]) -> str:
    """A node as messages name it, with the first ONNX nodes that it came from: `node 'x' (from a, b)`."""
    return f"node '{name}' (from {', '.join(provenance[:3])})" if provenance else f"node '{name}'"


@dataclass(eq=False)
class Graph:
    """A dataflow graph at one of the three levels (onnx, ssm, tile). Acyclic; inputs and outputs are nodes.

    `attributes` hold facts about the whole model (`form`: "sequence" or "step", ...).
    """

    name: str = "model"
    attributes: dict[str, Any] = field(default_factory=dict)
    net: nx.MultiDiGraph[str] = field(default_factory=nx.MultiDiGraph)
    _serial: dict[str, int] = field(default_factory=dict, repr=False)  # of each node, in the order of their addition
    _next: int = 0  # serial number
    _order: list[str] | None = field(default=None, repr=False)  # the topological order, while it is known
    # Nodes that may be unused, in the order in which they lost a user, since the last `prune`; None: any.
    _loose: dict[str, None] | None = field(default=None, repr=False)

    # -- building ----------------------------------------------------------------------------------------

    def add(
        self,
        op: Op | str,
        operands: Sequence[Value | None] = (),
        attrs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        types: tuple[ValueType, ...] | None = None,
        provenance: Sequence[str] = (),
    ) -> Value:
        """Add a node and return its first result.

        Types come from the op's rule unless given (onnx ops). Raises ValueError where operands or attributes
        do not fit the op's declaration, KeyError for an unknown op.
        """
        op = op if isinstance(op, Op) else Op(op, attrs or {})
        spec = spec_of(op.name)
        if spec.attributes:
            op = Op(op.name, spec.complete(op.attrs))
        if types is None:
            types = self.infer(op, spec, operands)
        label = self._free_name(name or op.name.rpartition(".")[2])
        self.net.add_node(label, data=Node(label, op, types, tuple(provenance)))
        self._serial[label] = self._next
        self._next += 1
        if self._order is not None:
            self._order.append(label)
        if self._loose is not None:
            self._loose[label] = None
        for slot, value in enumerate(operands):
            if value is not None:
                self._connect(label, slot, value)
        return Value(label)

    def infer(self, op: Op, spec: OpSpec, operands: Sequence[Value | None]) -> tuple[ValueType, ...]:
        """Result types of `op` on `operands`, by its declaration. Raises ValueError where they do not fit."""
        if len(operands) < spec.required_operands or (not spec.variadic and len(operands) > len(spec.operands)):
            raise ValueError(f"op '{op.name}' takes {', '.join(spec.operands)}; given {len(operands)} operands")
        for slot, value in enumerate(operands[: spec.required_operands]):
            if value is None:
                raise ValueError(f"op '{op.name}' needs its operand '{spec.slot(slot)}'")
        kinds = [None if value is None else self.type(value) for value in operands]
        kinds += [None] * (len(spec.operands) - len(kinds) - spec.variadic)
        return spec.infer(op, kinds)

    def _free_name(self, base: str) -> str:
        if not base.replace("_", "a").replace(".", "a").isalnum():
            base = "".join(c if c.isalnum() or c in "_." else "_" for c in base) or "value"
        name, count = base, self._next
        while name in self.net:
            name, count = f"{base}_{count}", count + 1
        return name

    def _connect(self, node: str, slot: int, value: Value) -> None:
        if value.index >= len(self.node(value.node).types):
            raise ValueError(f"node '{value.node}' has no result {value.index}")
        self.net.add_edge(value.node, node, key=slot, index=value.index)

    # The adjacency itself: networkx's views of it take longer than all else that is done with them.

    @property
    def _before(self) -> _Adjacency:
        return self.net._pred  # type: ignore[attr-defined, no-any-return]

    @property
    def _after(self) -> _Adjacency:
        return self.net._succ  # type: ignore[attr-defined, no-any-return]

    # -- reading -----------------------------------------------------------------------------------------

    def __contains__(self, node: str) -> bool:
        return node in self.net

    def __len__(self) -> int:
        return int(self.net.number_of_nodes())

    def node(self, name: str) -> Node:
        """A node by name. Raises KeyError."""
        node: Node = self.net.nodes[name]["data"]
        return node

    def op(self, name: str) -> Op:
        """The op of a node. Raises KeyError."""
        return self.node(name).op

    def type(self, value: Value) -> ValueType:
        """The type of a value: what it is at a step or once a sequence, and its feature shape."""
        return self.node(value.node).types[value.index]

    def operands(self, name: str) -> list[Value | None]:
        """Operand values by slot, None where an optional one is absent (trailing ones are left out)."""
        edges = self._before[name].items()
        found = {slot: Value(u, data["index"]) for u, slots in edges for slot, data in slots.items()}
        return [found.get(slot) for slot in range(max(found, default=-1) + 1)]

    def operand(self, name: str, slot: int) -> Value:
        """The operand in `slot`. Raises KeyError where it is absent."""
        values = self.operands(name)
        value = values[slot] if slot < len(values) else None
        if value is None:
            raise KeyError(f"node '{name}' has no operand {slot}")
        return value

    def results(self, name: str) -> list[Value]:
        """All results of a node, in order."""
        return [Value(name, index) for index in range(len(self.node(name).types))]

    def users(self, value: Value) -> list[tuple[str, int]]:
        """(node, slot) of every use of a value, in the order in which the users were added."""
        edges = self._after[value.node].items()
        uses = [(v, slot) for v, slots in edges for slot, data in slots.items() if data["index"] == value.index]
        return sorted(uses, key=lambda use: (self._serial[use[0]], use[1]))

    def is_shared(self, value: Value) -> bool:
        """Whether a value is used more than once."""
        slots = (data for slots in self._after[value.node].values() for data in slots.values())
        return any(count for count, data in enumerate(d for d in slots if d["index"] == value.index))

    def order(self) -> list[str]:
        """Topological order; among ready nodes the one added first comes first. Raises ValueError on a cycle."""
        if self._order is None:
            self._order = self._sorted()
        return list(self._order)

    def _sorted(self) -> list[str]:
        after, serial = self._after, self._serial
        waiting = {name: sum(map(len, edges.values())) for name, edges in self._before.items()}
        ready = [(serial[name], name) for name, degree in waiting.items() if degree == 0]
        heapq.heapify(ready)
        sequence: list[str] = []
        while ready:
            _, name = heapq.heappop(ready)
            sequence.append(name)
            for user, edges in after[name].items():
                waiting[user] -= len(edges)
                if waiting[user] == 0:
                    heapq.heappush(ready, (serial[user], user))
        if len(sequence) != len(self):
            stuck = sorted(set(self.net.nodes) - set(sequence))
            raise ValueError(f"the graph has a cycle through '{stuck[0]}'")
        return sequence

    def nodes(self, *ops: str) -> Iterator[Node]:
        """Nodes in topological order, all of them or those of the named ops; safe while the graph changes."""
        for name in self.order():
            if name in self.net and (not ops or self.op(name).name in ops):
                yield self.node(name)

    @property
    def mark(self) -> int:
        """A mark between the nodes that are there and those that will be added (`added_since`)."""
        return self._next

    def added_since(self, mark: int) -> list[str]:
        """The nodes that were added after a `mark` was taken, in that order; it takes as long as there are many."""
        found = [name for name, _ in takewhile(lambda entry: entry[1] >= mark, reversed(self._serial.items()))]
        return found[::-1]

    def oldest_first(self, names: Iterable[str]) -> list[str]:
        """Nodes in the order in which they were added."""
        return sorted(names, key=self._serial.__getitem__)

    def inputs(self) -> list[Node]:
        """The input nodes, in the order in which they were added (which is also their topological order)."""
        return [self.node(name) for name in self.oldest_first(n for n in self.net if self.op(n).name == "input")]

    def outputs(self) -> list[Node]:
        """The output nodes, in topological order."""
        return list(self.nodes("output"))

    # -- changing ----------------------------------------------------------------------------------------

    def set_op(self, name: str, op: Op) -> None:
        """Replace a node's op in place; result types are inferred anew and must be compatible with the users."""
        spec = spec_of(op.name)
        op = Op(op.name, spec.complete(op.attrs)) if spec.attributes else op
        node = self.node(name)
        self.net.nodes[name]["data"] = replace(node, op=op, types=self.infer(op, spec, self.operands(name)))

    def set_place(self, name: str, place: Place) -> None:
        """Say where and when a node runs (see `Place`)."""
        self.net.nodes[name]["data"] = replace(self.node(name), place=place)

    def add_provenance(self, name: str, *sources: str) -> None:
        """Names of further ONNX nodes that a node comes from; none is listed twice."""
        node = self.node(name)
        merged = tuple(dict.fromkeys((*node.provenance, *sources)))
        self.net.nodes[name]["data"] = replace(node, provenance=merged)

    def connect(self, node: str, slot: int, value: Value | None) -> None:
        """Put `value` (or nothing) into an operand slot of a node."""
        self._order = None
        before = self._before[node]
        for u in [u for u, slots in before.items() if slot in slots]:
            self.net.remove_edge(u, node, slot)
            self._lost_user(u)
        if value is not None:
            self._connect(node, slot, value)

    def replace_uses(self, old: Value, new: Value) -> None:
        """Let every user of `old` read `new`."""
        for user, slot in self.users(old):
            self.connect(user, slot, new)

    def remove(self, name: str) -> None:
        """Remove a node that nothing uses. Raises ValueError where something does."""
        if self.net.out_degree(name):
            raise ValueError(f"node '{name}' is still used")
        self._drop(name)

    def _lost_user(self, name: str) -> None:
        if self._loose is not None:
            self._loose[name] = None

    def _drop(self, name: str) -> None:
        self._order = None
        for before in self._before[name]:
            self._lost_user(before)
        self.net.remove_node(name)
        del self._serial[name]

    def prune(self) -> list[str]:
        """Remove what no output needs (inputs stay); returns the removed names.

        It takes as long as what changed since the last time is large.
        """
        loose = list(self.net) if self._loose is None else list(self._loose)
        self._loose, dead = {}, []
        while loose:
            for name in loose:
                if name in self.net and not self._after[name] and self.op(name).name not in ("input", "output"):
                    self._drop(name)
                    dead.append(name)
            loose, self._loose = list(self._loose), {}
        return dead

    def copy(self) -> Graph:
        """A graph of its own over the same frozen nodes."""
        order, loose = self._order and list(self._order), None if self._loose is None else dict(self._loose)
        return Graph(self.name, dict(self.attributes), self.net.copy(), dict(self._serial), self._next, order, loose)

    def part(self, names: Collection[str]) -> Graph:
        """A graph of its own over some of the nodes, with the edges between them."""
        serial = {name: self._serial[name] for name in self.net if name in names}
        return Graph(self.name, dict(self.attributes), self.net.subgraph(names).copy(), serial, self._next)
