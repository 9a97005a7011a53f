"""Recurrences whose decay is exp(Lambda dt) of an elapsed time dt: made asynchronous systems.

The asynchronous form (Schoene et al., arXiv 2404.18508) keeps Lambda apart from the time between events. A decay
a(dt) has it exactly if a(s + t) = a(s) a(t); then Lambda = log a(h) / h for an h small enough for the branch of
the logarithm to be known, refined by doubling h.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import networkx as nx
import numpy as np

from ssmc.frontend.graph.builder import PER_STEP, Builder, Operand, features_of, kind_of, size_of
from ssmc.ir.graph import Graph, Value
from ssmc.ir.interpreter import run_node
from ssmc.ir.op import Array
from ssmc.ir.types import StreamType
from ssmc.statespace import StateSpace

TOLERANCE = 1e-9


def recognise_asynchronous(graph: Graph) -> dict[str, str]:
    """Replace recurrences that decay by exp(Lambda dt), in place; old name -> new name."""
    renamed: dict[str, str] = {}
    position = {name: (k, 0) for k, name in enumerate(graph.order())}
    for node in list(graph.nodes("recurrence")):
        decay = graph.operand(node.name, 0)
        clock = _clock(graph, decay, position)
        if clock is None:
            continue
        rates = _rates(graph, clock, decay, size_of(graph, Value(node.name)))
        if rates is not None:
            mark, (first, _) = graph.mark, position[node.name]
            renamed[node.name] = _replace(graph, node.name, clock, rates)
            position.update((new, (first, 1 + k)) for k, new in enumerate(graph.added_since(mark)))
    graph.prune()
    return renamed


def mark_clocks(graph: Graph) -> set[str]:
    """Give inputs that are the elapsed time of an asynchronous system their role; their names."""
    clocks = set()
    for node in graph.nodes("ssm"):
        operands = graph.operands(node.name)
        clock = operands[1] if len(operands) > 1 else None
        while clock is not None and graph.op(clock.node).name == "reshape":
            clock = graph.operand(clock.node, 0)
        if clock is not None and graph.op(clock.node).name == "input":
            clocks.add(clock.node)
    for name in clocks:
        graph.set_op(name, graph.op(name).with_attrs(role="dt"))
    return {graph.op(name)["name"] for name in clocks}


JUMPS = frozenset(["equal", "floor", "ceil", "round"])


def recognise_invariant(graph: Graph) -> dict[str, str]:
    """Replace recurrences whose decay is a constant by systems, in place; old name -> new name."""
    renamed: dict[str, str] = {}
    for node in list(graph.nodes("recurrence")):
        decay = graph.operand(node.name, 0)
        if graph.op(decay.node).name == "constant":
            shape = features_of(graph, Value(node.name))
            values = np.broadcast_to(graph.op(decay.node)["value"].array, shape).reshape(-1)
            renamed[node.name] = _replace(graph, node.name, None, values)
    graph.prune()
    return renamed


def _clock(graph: Graph, decay: Value, position: Mapping[str, tuple[int, int]]) -> Value | None:
    """The first single number a step through which everything that `decay` depends on has passed.

    `position` are places in a topological order. Walking up from the decay, it is a value beside which no other waits.
    """
    found: Value | None = None
    waiting, met = [(_later(position[decay.node]), decay.node)], {decay.node}
    while waiting:
        _, name = heapq.heappop(waiting)
        op, kind = graph.op(name), graph.node(name).types[0]
        if op.get("fn") in JUMPS:  # before a jump: no exponential, whatever it is at a few points
            break
        single = isinstance(kind, StreamType) and prod(kind.shape) == 1 and kind.element == "real"
        if single and not waiting:
            found = Value(name)
        if op.name not in PER_STEP:
            break
        before = {v.node for v in graph.operands(name) if v is not None and graph.op(v.node).name != "constant"} - met
        met |= before
        for other in before:
            heapq.heappush(waiting, (_later(position[other]), other))
    return found


def _later(place: tuple[int, int]) -> tuple[int, int]:
    return -place[0], -place[1]


def run_cone(graph: Graph, given: Mapping[Value, Array], wanted: Value) -> Array:
    """The array of `wanted` for arrays of the `given` values, within one step."""
    values: dict[Value, Any] = dict(given)
    for name in _cone(graph, {value.node for value in given}, wanted.node):
        if Value(name) in values:
            continue
        operands = graph.operands(name)
        if any(v is not None and v not in values for v in operands):
            continue  # behind a given value
        arrays = [None if v is None else values[v] for v in operands]
        kinds = [None if v is None else graph.type(v) for v in operands]
        results = run_node(graph.node(name), arrays, kinds) if graph.op(name).name != "input" else ()
        values.update(zip(graph.results(name), results, strict=False))
    return np.asarray(values[wanted])


def _cone(graph: Graph, given: Collection[str], wanted: str) -> list[str]:
    """What `wanted` is computed from, as far as that happens within one step, and up to what is given; in order."""
    before: nx.DiGraph[str] = nx.DiGraph()
    before.add_node(wanted)
    waiting = [wanted]
    while waiting:
        name = waiting.pop()
        if name in given or graph.op(name).name not in PER_STEP:
            continue
        operands = [v.node for v in graph.operands(name) if v is not None]
        waiting += [v for v in operands if v not in before]
        before.add_edges_from((v, name) for v in operands)
    return list(nx.topological_sort(before))


def _rates(graph: Graph, clock: Value, decay: Value, states: int) -> Array | None:
    """Lambda (states,), or None where the decay is not exp(Lambda dt)."""
    shape = features_of(graph, clock)

    def a(dt: Array) -> Array:  # (K,) -> (K, states)
        found = run_cone(graph, {clock: dt.reshape(1, -1, *shape)}, decay)
        rows = found.reshape(found.shape[1], -1)
        return np.broadcast_to(rows, (len(dt), states)) if rows.shape[1] in (1, states) else np.full((1, 1), np.nan)

    with np.errstate(all="ignore"):
        steps = 2.0 ** -np.arange(48)[::-1]  # rising
        table = a(steps).astype(np.complex128)
        if table.shape != (48, states) or not np.isfinite(table).all():
            return None
        rates = np.log(table[0]) / steps[0]
        for h, row in zip(steps[1:], table[1:], strict=True):
            log = np.log(row)
            guess = rates * h
            log = log + 2j * np.pi * np.rint((guess.imag - log.imag) / (2 * np.pi))
            usable = (np.abs(row) > 1e-12) & (np.abs(log - guess) < 1.0)
            rates = np.where(usable, log / h, rates)
        scale = max(float(np.abs(rates).max(initial=0.0)), 1e-12)
        trials = np.concatenate([[0.0], np.random.default_rng(0).uniform(0, 1, 24) * 3.0 / scale, [0.5, 1.0, 2.0]])
        expected = np.exp(rates * trials[:, None])
        error = np.abs(a(trials) - expected).max(initial=0.0)
    if not np.isfinite(error) or error > TOLERANCE * max(float(np.abs(expected).max()), 1.0):
        return None
    return np.asarray(rates if np.iscomplexobj(a(steps[:1])) else rates.real)


def _replace(graph: Graph, name: str, clock: Value | None, rates: Array) -> str:
    builder, node = Builder(graph), graph.node(name)
    shape = features_of(graph, Value(node.name))
    n, op = prod(shape), node.op
    drive = graph.operand(name, 1)
    operands = [*graph.operands(name), None]
    x0: Operand | None = operands[2]
    is_complex = kind_of(graph, Value(node.name)).element == "complex"
    with builder.origin(node.provenance):
        if is_complex:
            re, im = (builder.reshape(p, (n, 1)) for p in complex_parts(builder, drive))
            u = builder.reshape(builder.concat([re, im], -1), (2 * n,))
        else:
            u = builder.reshape(drive, (n,))
        x0 = None if x0 is None else builder.reshape(x0, (n,))
        system = unit_system(rates.astype(np.complex128) if is_complex else rates, op["read_before"], clock is not None)
        dt = None if clock is None else builder.reshape(clock, ())
        y = builder.add("ssm", [u, dt, x0], system=system, reverse=op["reverse"])
        last = builder.reshape(Value(y.node, 1), shape)
        if not is_complex:
            whole = builder.reshape(y, shape)
        else:
            pairs = builder.reshape(y, (n, 2))
            re, im = (builder.reshape(builder.slice(pairs, -1, k, k + 1), shape) for k in (0, 1))
            whole = None
    for user, slot in graph.users(Value(name)):
        use = graph.op(user).name
        if is_complex and use in ("real", "imag"):
            graph.replace_uses(Value(user), re if use == "real" else im)  # type: ignore[arg-type]
            continue
        if whole is None:
            whole = builder.emit("complex", [re, im])
        graph.connect(user, slot, whole)  # type: ignore[arg-type]
    for user, slot in graph.users(Value(name, 1)):
        graph.connect(user, slot, last)  # type: ignore[arg-type]
    return y.node


def unit_system(rates: Array, read_before: bool, asynchronous: bool) -> StateSpace:
    """x <- exp(rate dt) x + u, or rate x + u, a state at a time; complex states take and give (re, im) pairs."""
    n = len(rates)
    pair = np.iscomplexobj(rates)
    return StateSpace(
        A=rates[:, None],
        B=np.tile([[[1.0, 1.0j]]], (n, 1, 1)) if pair else np.ones((n, 1, 1)),
        C=np.tile([[[1.0], [-1.0j]]], (n, 1, 1)) if pair else np.ones((n, 1, 1)),
        D=np.zeros((n, 2, 2) if pair else (n, 1, 1)),
        delta=np.ones((1, 1)) if asynchronous else None,
        asynchronous=asynchronous,
        read_before=read_before,
    )


def complex_parts(builder: Builder, z: Value) -> tuple[Operand, Operand]:
    """Real and imaginary part of a complex value, those it was made of where it was."""
    node = builder.graph.node(z.node)
    if node.op.name == "complex":
        shape = builder.features(z)
        re, im = (builder.graph.operand(z.node, slot) for slot in (0, 1))
        return builder.broadcast(re, shape), builder.broadcast(im, shape)
    return builder.emit("real", [z]), builder.emit("imag", [z])
