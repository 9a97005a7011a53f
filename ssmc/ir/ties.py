"""Roundings on the edge between two codes: which may go either way in another precision, and what that does to outputs.

A number in float32 differs from that in float64 by its last digits. Where it lies between two codes, one code comes of
the one and its neighbour of the other, and both are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.ir.graph import Graph, Node, Value
from ssmc.ir.interpreter import interpret
from ssmc.ir.op import Array
from ssmc.ir.ops.rounded import GRID, PLACES, grids_of, on_grid, rounded_step, times
from ssmc.ir.ops.rounded_sums import FREE, steps
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import ConstantType

SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # relative rounding of float32 and float64
UNITS = 16.0  # ours: how many such roundings what is rounded to a code may be off
TRIES = 6  # sets of directions in which the edges are moved
MARGIN = 3.0  # ours: what all that lie on an edge may do, in multiples of the worst of the tries
SMALL = 1e-4  # ours: less needs no bound
MIDDLE = 0.25  # codes: on no edge, as what is beyond the range
EDGES = {"nearest": 0.5, "floor": 0.0, "ceil": 0.0}
UNARY = {"round": "nearest", "floor": "floor", "ceil": "ceil"}


@dataclass(frozen=True)
class Ties:
    """Of `count` roundings `near` lie on an edge; going otherwise there moves outputs by `effect`, relatively.

    `effect` is max|y' - y| / max|y| of the worst output; `most` the same where all go a code up or down.
    In the samples `clear` nothing lies on an edge.
    """

    near: int
    count: int
    effect: float
    most: float = 0.0
    clear: tuple[int, ...] = ()

    @property
    def allowed(self) -> float:
        """What edges may move outputs by: a few times what was tried, no more than all roundings together would."""
        return min(MARGIN * self.effect, self.most)

    def limits(self) -> str:
        """What is allowed, and why not more."""
        why = f"{MARGIN:g} times that"
        if self.allowed < MARGIN * self.effect:
            why = "what a code more or less at every rounding does"
        return f"allowed is {self.allowed:.1e}, {why}"

    def __str__(self) -> str:
        return (
            f"{self.near} of {self.count} roundings lie on the edge between two codes, to within the precision of the "
            f"arithmetic, and may go either way; outputs move by up to {self.effect:.1e} of the largest then"
        )


def find_ties(graph: Graph, inputs: Mapping[str, Array], precision: float = SINGLE) -> Ties:
    """What roundings on an edge do to the graph's outputs, for inputs in its own layout; see `Ties`."""
    nodes = list(graph.nodes("rounded", "rounded_sums"))
    nodes += [n for n in graph.nodes("unary") if n.op["fn"] in UNARY and not isinstance(n.types[0], ConstantType)]
    if not nodes:
        return Ties(0, 0, 0.0)
    values = interpret(graph, inputs, keep=True)
    near = count = 0
    rooms: dict[str, Array] = {}
    touched = np.zeros(1, bool)
    for node in nodes:
        places, rounding = _places(graph, node, values)
        room = UNITS * precision * np.maximum(np.abs(places).max(axis=(0, 1), initial=0.0), 1.0)
        away = places - EDGES[rounding]
        close = np.abs(away - np.rint(away)) <= room
        touched = touched | close.any(axis=(1, 2))
        near += int(close.sum())
        count += places.size
        rooms[node.name] = np.asarray(room)
    if not near:
        return Ties(0, count, 0.0)
    effect = _effect(graph, inputs, values, rooms)
    whole = {name: np.ones_like(room) for name, room in rooms.items()}
    most = _effect(graph, inputs, values, whole) if MARGIN * effect > SMALL else MARGIN * effect
    return Ties(near, count, effect, most, tuple(np.flatnonzero(~touched).tolist()))


def _effect(graph: Graph, inputs: Mapping[str, Array], values: Mapping[str, Any], rooms: Mapping[str, Array]) -> float:
    """How far outputs move, relatively, where edges move by so many codes up or down: the worst of some draws."""
    rng, effect = np.random.default_rng(41), 0.0
    for _ in range(TRIES):
        try:
            moved = interpret(_moved(graph, rooms, rng), inputs)
        except UserError:  # a row of a table that is none: what nothing else would choose
            continue
        for name in (node.op["name"] for node in graph.outputs()):
            largest = max(float(np.abs(values[name]).max(initial=0.0)), 1e-300)
            effect = max(effect, float(np.abs(moved[name] - values[name]).max(initial=0.0)) / largest)
    return effect


def _places(graph: Graph, node: Node, values: Mapping[str, Any]) -> tuple[Array, str]:
    """(batch, steps, numbers) in codes, what a node rounds, and how."""
    operand = graph.operand(node.name, 0)
    v = np.asarray(values[str(operand)], np.float64)
    if node.op.name == "unary":
        return v.reshape(len(v), -1, int(np.prod(_shape(graph, operand)))), UNARY[node.op["fn"]]
    if node.op.name == "rounded_sums":
        return _sums_places(graph, node, values, v), node.op["rounding"]
    op, grids = node.op, grids_of(node.op)
    v = v.reshape(*v.shape[:2], -1)
    v = v[:, ::-1] if op["reverse"] else v
    operands = graph.operands(node.name)
    start = 0.0 if len(operands) < 2 else np.asarray(values[str(operands[1])], np.float64).reshape(-1, v.shape[2])
    x = np.broadcast_to(start, (len(v), v.shape[2]))
    decay, seen = op["decay"].array.reshape(-1), []
    for k in range(v.shape[1]):
        reached, following = rounded_step(decay, grids, op["rounding"], op["is_complex"], x, v[:, k])
        held = on_grid(grids["state"], op["rounding"], x) if "state" in grids else x
        own, cross, turned = times(decay, grids, op["rounding"], op["is_complex"], held)
        for place, number in zip(PLACES, (x, own, cross, turned, reached), strict=True):
            if place in grids and number is not None:
                seen.append(_codes(grids[place], number))
        x = following
    return np.stack(seen, axis=1), op["rounding"]


def _sums_places(graph: Graph, node: Node, values: Mapping[str, Any], v: Array) -> Array:
    operands, grid = graph.operands(node.name), node.op["grid"].array
    start = None if len(operands) < 2 or operands[1] is None else values[str(operands[1])]
    free = grid[0] == FREE
    held = np.where(free, 1.0, grid)
    return np.stack(
        [np.where(free, MIDDLE, _codes(held, reached)) for _, _, reached, _ in steps(node.op, v, start)], axis=1
    )


def _codes(grid: Array, number: Array) -> Array:
    """Numbers in codes; on no edge where they are beyond the range."""
    scale, shift, _, low, high = grid
    code = number / scale + shift
    return np.asarray(np.where((code > low - 1) & (code < high + 1), code, MIDDLE))


def _shape(graph: Graph, value: Value) -> tuple[int, ...]:
    """Features of a value at one step."""
    kind: Any = graph.type(value)
    return tuple(kind.shape)


def _moved(graph: Graph, rooms: Mapping[str, Array], rng: np.random.Generator) -> Graph:
    """The graph with its edges moved, each up or down."""
    found = graph.copy()
    shift = np.eye(len(GRID))[GRID.index("shift")][:, None]
    for name, room in rooms.items():
        op = found.op(name)
        by = room * rng.choice([-1.0, 1.0], room.shape)
        if op.name == "rounded":
            grids = {f"{place}_grid": op[f"{place}_grid"] for place in PLACES if op[f"{place}_grid"] is not None}
            moved = {key: grid.array + (shift * by).reshape(-1, *grid.shape[1:]) for key, grid in grids.items()}
            found.set_op(name, op.with_attrs(**{key: Tensor(rows) for key, rows in moved.items()}))
            continue
        if op.name == "rounded_sums":
            found.set_op(name, op.with_attrs(grid=Tensor(op["grid"].array + shift * by)))
            continue
        operand = found.operand(name, 0)
        constant = found.add("constant", [], {"value": Tensor(by.reshape(_shape(found, operand)))})
        sum_ = found.add("binary", [operand, constant], {"fn": "add"})
        found.connect(name, 0, sum_)
    return found
