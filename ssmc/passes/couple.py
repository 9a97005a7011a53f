"""Which states are charged by columns, and which drive rows, without conversions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import networkx as nx
import numpy as np

from ssmc.ir import Graph, Node, SequenceType, StreamType, Value, interpret
from ssmc.ir.op import Array
from ssmc.passes.base import Context, Pass
from ssmc.passes.choices import CouplingChoice
from ssmc.passes.coupling_errors import charging_errors, driving_errors
from ssmc.passes.machine import Coupling, Machine
from ssmc.passes.probe import excerpt

IN, OUT = "in", "out"
VECTORS = 1024  # that errors are estimated on


@dataclass(frozen=True)
class Couple(Pass):
    """Let columns charge decaying states, and these drive rows, without conversions, where the target can.

    before  %v = tile.matmul(%u)    %x = tile.state(%v) {bank = "volatile"}    %y = tile.matmul(%x)
    after   the same, and the graph's attribute coupling {"x": {"core": 0, "in": "v", "out": "y"}}

    A side is coupled where nothing is between product and states: the drive is one product, without a bias, that
    nobody else reads; the states are read by one product alone; no rotating frame, no stream turned round; all arrays
    of the side belong to one core, which has nodes enough; on converters whose range follows each vector, calibration
    data must tell a fixed one. Split rows join on their lines. It is taken where conversions cost energy and the
    error that is expected, of what differs on both ways and of whole products, is no more than `worse` times that of
    converters. `sides` allows some (both, in, out, off). What a program computes is not changed.
    """

    name = "couple"
    sides: Literal["both", "in", "out", "off"] = "both"
    worse: float = 1.5

    def __post_init__(self) -> None:
        if not self.worse > 0:
            raise ValueError(f"worse must be above 0, not {self.worse:g}")

    def run(self, graph: Graph, context: Context) -> Graph:
        machine = context.machine
        if machine is None or machine.coupling is None:
            return graph
        asked = [side for side in (IN, OUT) if self.sides in (side, "both")]
        work = _Work(graph, machine, context)
        found: dict[str, dict[str, object]] = {}
        for node in graph.nodes("tile.state"):
            if node.op["bank"] != "volatile" and not any(_product(graph, node, side) for side in (IN, OUT)):
                continue
            chosen = self._node(work, node, asked)
            if chosen:
                core = work.core(graph.node(next(iter(chosen.values()))))
                found[node.name] = {"core": core, **chosen}
                work.used[core, work.load(node)] += node.op["decay"].shape[0]
        if not found:
            return graph
        out = graph.copy()
        out.attributes["coupling"] = found
        return out

    def _node(self, work: _Work, node: Node, asked: list[str]) -> dict[str, str]:
        """The products that are coupled, by side; both ways of each side go to the context's report."""
        chosen: dict[str, str] = {}
        for side in (IN, OUT):
            product = _product(work.graph, node, side)
            told = CouplingChoice(node.name, side, "" if product is None else product.name, 0.0, None, None, "")
            objection = _structure(work.graph, node, side, product) or work.objection(node, side, product, chosen)
            if product is None or objection:
                work.context.couplings.append(replace(told, objection=objection))
                continue
            converted, coupled = work.errors(product, side)
            told = replace(told, joules=work.joules(product, side), converted=converted, coupled=coupled)
            better = told.coupled is None or told.converted is None or told.coupled <= self.worse * told.converted
            take = side in asked and told.joules > 0 and better
            work.context.couplings.append(replace(told, chosen=take))
            if take:
                chosen[side] = product.name
        return chosen


def spared(graph: Graph, node: Node, context: Context) -> float:
    """Joules of a step's conversions that coupling would spare a layer in the volatile bank, before anything is placed:
    where nothing stands between states and products, and one core can hold them all."""
    coupling = None if context.machine is None else context.machine.coupling
    if context.machine is None or coupling is None or not (context.ideal or context.calibration):
        return 0.0
    if node.op.name != "tile.state" or node.op["decay"].shape[0] > coupling.nodes_per_core:
        return 0.0
    node = replace(node, op=node.op.with_attrs(bank="volatile"))
    most, total = context.machine.arrays_per_core, 0.0
    for side, allowed in ((IN, coupling.into), (OUT, coupling.out)):
        product = _product(graph, node, side)
        if not allowed or product is None or _structure(graph, node, side, product):
            continue
        if most is None or len(product.op["pieces"]) <= most:
            total += conversions(coupling, product, side)
    return total


def conversions(coupling: Coupling, product: Node, side: str) -> float:
    """Joules of a step's conversions on one side of a product."""
    if side == IN:
        return float(coupling.conversion * sum(p.n1 - p.n0 for p in product.op["pieces"]))
    return float(coupling.drive * sum(p.k1 - p.k0 for p in product.op["pieces"]))


def _product(graph: Graph, node: Node, side: str) -> Node | None:
    """The matrix before the states, or the one behind them, where there is one only."""
    if side == IN:
        drive = graph.operand(node.name, 0)
        return graph.node(drive.node) if graph.op(drive.node).name == "tile.matmul" else None
    users = {user for user, _ in graph.users(Value(node.name))}
    products = [graph.node(user) for user in sorted(users)]
    return products[0] if len(products) == 1 and products[0].op.name == "tile.matmul" else None


def _structure(graph: Graph, node: Node, side: str, product: Node | None) -> str:
    """What stands between the states and the product; empty where nothing does."""
    decay = node.op["decay"].array
    if node.op["bank"] != "volatile":
        return f"its states are in bank '{node.op['bank']}'"
    if np.iscomplexobj(decay) or (not node.op["asynchronous"] and bool((decay < 0).any())):
        return "its states turn: rotating frames are digital"
    if node.op["reverse"]:
        return "its stream is turned round on the way"
    if product is None and side == IN:
        return f"its drive comes from '{graph.op(graph.operand(node.name, 0).node).name}', not from a product"
    if product is None:
        users = sorted(graph.op(user).name for user in {user for user, _ in graph.users(Value(node.name))})
        return f"its states are read by {', '.join(users) or 'nothing'}, not by one product alone"
    if side == IN and product.op["bias"] is not None:
        return "its drive has a bias"
    if side == IN and len(graph.users(Value(product.name))) > 1:
        return "its drive is read elsewhere, too"
    if side == IN and not _covers(node, product):
        return "its drive leaves states out"
    if side == IN and _waits(graph, node, product):
        return "its states wait for what a whole sequence gives, its drive does not"
    return ""


def _waits(graph: Graph, node: Node, product: Node) -> bool:
    """Whether the states need what a sweep through the sequence gives, or a stream turned round, and their drive does
    not: these run in different sweeps."""
    net: Any = graph.net
    between = nx.ancestors(net, node.name) - nx.ancestors(net, product.name) - {product.name}
    return any(
        graph.op(name).name == "reverse"
        or graph.op(name).get("reverse")
        or (
            any(isinstance(graph.type(v), StreamType) for v in graph.operands(name) if v is not None)
            and any(isinstance(kind, SequenceType) for kind in graph.node(name).types[:1])
        )
        for name in between
    )


def _covers(node: Node, drive: Node) -> bool:
    """Whether every state has a column, and columns are cut alike in all rows, so that they can join on lines."""
    ranges = sorted({(p.n0, p.n1) for p in drive.op["pieces"]})
    states = sorted((p.k0, p.k1) for p in node.op["pieces"])
    count = node.op["decay"].shape[0]
    return all(
        found and found[0][0] == 0 and found[-1][1] == count and all(a[1] == b[0] for a, b in pairwise(found))
        for found in (ranges, states)
    )


@dataclass
class _Work:
    """What the choice is made on; `used` are the nodes of coupled layers by core and load."""

    graph: Graph
    machine: Machine
    context: Context
    used: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    values: Mapping[str, Array] | None = None

    def load(self, node: Node) -> int:
        return int(self.graph.attributes.get("loads", {}).get(node.name, 0))

    def core(self, product: Node) -> int:
        """The core of all its arrays; -1 where there are several."""
        cores = {piece.unit // (self.machine.arrays_per_core or 1 << 30) for piece in product.op["pieces"]}
        return cores.pop() if len(cores) == 1 else -1

    def objection(self, node: Node, side: str, product: Node | None, chosen: Mapping[str, str]) -> str:
        """Why the machine cannot couple them as they lie; empty where it can."""
        coupling = self.machine.coupling
        assert coupling is not None and product is not None
        if not (coupling.into if side == IN else coupling.out):
            return "the target does not couple this side"
        if self.load(node) != self.load(product):
            return "its arrays are written in another sweep"
        core = self.core(product)
        if core < 0:
            return "its arrays lie on several cores"
        if chosen:
            other = self.core(self.graph.node(next(iter(chosen.values()))))
            if core != other:
                return f"its arrays lie on core {core}, its states on core {other}"
        elif self.used[core, self.load(node)] + node.op["decay"].shape[0] > coupling.nodes_per_core:
            return f"core {core} has too few nodes left"
        if not self.context.ideal and not self.context.calibration:
            return "nothing tells what drives a row fully: --calibrate"
        return ""

    def joules(self, product: Node, side: str) -> float:
        coupling = self.machine.coupling
        assert coupling is not None
        return conversions(coupling, product, side)

    def errors(self, product: Node, side: str) -> tuple[float, float] | tuple[None, None]:
        """Expected of converters and of lines; not known in ideal programs."""
        machine = self.machine
        if self.context.ideal or machine.converters is None or not self.context.calibration:
            return None, None
        if self.values is None:
            self.values = interpret(self.graph, excerpt(self.graph, self.context.calibration, VECTORS), keep=True)
        x = self.values[str(self.graph.operand(product.name, 0))].reshape(-1, product.op["weight"].shape[0])
        x = x[np.linspace(0, len(x) - 1, min(VECTORS, len(x))).astype(int)]
        return (charging_errors if side == IN else driving_errors)(product, x, machine)
