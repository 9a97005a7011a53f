"""Short random inputs on which a graph is compared with its rewriting."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from math import lcm, prod

import numpy as np

from ssmc.ir import Graph, Node, SequenceType, StreamType, Value
from ssmc.ir.clocks import timestamps
from ssmc.ir.op import Array
from ssmc.statespace import time_constants

BATCH = 2
STEPS = 11  # or more: a multiple of what the graph pools by
INDEX_ROWS = 8  # an index that meets no table


def probe(graph: Graph, seed: int, least: int = STEPS) -> dict[str, Array] | None:
    """Inputs by name in the graph's layout, of at least `least` steps; None where a type does not say what an input
    may be (ONNX tensors).

    Numbers are standard normal; an index stays within the tables it meets; elapsed times are positive and of the
    order of the systems' time constants, times of events grow. State inputs are given, so that they are tested. There
    are fewer steps where a table of positions ends before.
    """
    rng = np.random.default_rng(seed)
    window = _window(graph)
    steps = max(window, min(window * -(-least // window), _positions(graph) // window * window))
    inputs: dict[str, Array] = {}
    for node in graph.inputs():
        kind = node.types[0]
        if not isinstance(kind, StreamType | SequenceType):
            return None
        shape = (BATCH, *((steps,) if isinstance(kind, StreamType) else ()), *kind.shape)
        inputs[node.op["name"]] = _draw(graph, node, kind.element, shape, rng)
    for name in timestamps(graph):
        inputs[name] = np.cumsum(rng.uniform(0.05, 1.0, inputs[name].shape), axis=1) * _time_scale(graph)
    return inputs


def excerpt(graph: Graph, data: Mapping[str, Array], budget: int) -> dict[str, Array]:
    """The first sequences of `data`, whole ones as long as they have no more than `budget` steps together."""
    streams = {node.op["name"] for node in graph.inputs() if isinstance(node.types[0], StreamType)}
    steps = max((array.shape[1] for name, array in data.items() if name in streams), default=1)
    window = _window(graph)
    kept = steps if steps <= budget else max(window, budget // window * window)
    sequences = max(1, budget // max(1, steps))
    return {name: array[:sequences, :kept] if name in streams else array[:sequences] for name, array in data.items()}


def numbers_a_step(graph: Graph) -> int:
    """Weights of matrices and numbers of streams: what the interpreter goes through in a step, about."""
    weights: int = sum(prod(node.op["weight"].shape) for node in graph.nodes("linear", "tile.matmul"))
    return weights + sum(prod(kind.shape) for node in graph.nodes() for kind in _streams(node))


def _window(graph: Graph) -> int:
    """Steps that pooling makes one of, over the whole graph."""
    return lcm(*(kind.rate.denominator for node in graph.nodes() for kind in _streams(node)))


def _streams(node: Node) -> list[StreamType]:
    return [kind for kind in node.types if isinstance(kind, StreamType)]


def _draw(graph: Graph, node: Node, element: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if node.op["role"] == "dt":
        return rng.uniform(0.05, 1.0, shape) * _time_scale(graph)
    if element == "index":
        return rng.integers(0, _rows(graph, node), shape)
    if element == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    drawn = rng.standard_normal(shape)
    return drawn + 1j * rng.standard_normal(shape) if element == "complex" else drawn


def _time_scale(graph: Graph) -> float:
    """The median time constant of the asynchronous systems; 1 where there are none."""
    systems = [node.op["system"] for node in graph.nodes("ssm")]
    times = [time_constants(system).ravel() for system in systems if system.asynchronous]
    times += [
        -1 / np.minimum(node.op["decay"].array.real, -1e-12)
        for node in graph.nodes("tile.state")
        if node.op["asynchronous"]
    ]
    finite = [t[np.isfinite(t)] for t in times]
    every = np.concatenate(finite) if finite else np.empty(0)
    return float(np.median(every)) if every.size else 1.0


def _positions(graph: Graph) -> int:
    """Input steps that every table of positions, looked up by counting, has rows for."""
    limits = [sys.maxsize]
    for node in graph.nodes("embed"):
        kind = node.types[0]
        if isinstance(kind, StreamType) and not _told(graph, node.name):
            limits.append(int(node.op["table"].shape[0] / kind.rate))
    return min(limits)


def _told(graph: Graph, name: str) -> bool:
    """Whether a value depends on what an input holds, and not on its length alone."""
    seen, waiting = {name}, [name]
    while waiting:
        node = graph.node(waiting.pop())
        if node.op.name == "input":
            return True
        values = graph.operands(node.name)
        for value in values[:1] if node.op.name == "spread" else values:
            if value is not None and value.node not in seen:
                seen.add(value.node)
                waiting.append(value.node)
    return False


def _rows(graph: Graph, node: Node) -> int:
    """Rows of the smallest table that an index reaches, by whatever way."""
    rows, seen, waiting = [], {node.name}, deque([node.name])
    while waiting:
        for value in graph.results(waiting.popleft()):
            for user, _ in graph.users(Value(value.node, value.index)):
                op = graph.op(user)
                if op.name == "embed":
                    rows.append(int(op["table"].shape[0]))
                elif user not in seen:
                    seen.add(user)
                    waiting.append(user)
    return min(rows, default=INDEX_ROWS)
