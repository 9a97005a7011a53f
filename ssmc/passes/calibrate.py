"""Converter ranges and state windows, from typical inputs; without them from norms, where they say anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmc.ir import Graph, Node, Piece, Value, interpret
from ssmc.ir.op import Array
from ssmc.ir.ops.tile import join_halves
from ssmc.passes.base import Context, Pass
from ssmc.passes.bounds import largest_values
from ssmc.passes.clipping import best_range
from ssmc.passes.grid import full_scale
from ssmc.passes.machine import Converters
from ssmc.passes.probe import excerpt

VECTORS = 4096  # that a converter's range is chosen on


@dataclass(frozen=True)
class Calibrate(Pass):
    """Choose the ranges of DACs and ADCs, array by array, and the window of each layer's decaying states.

    before  tile.matmul(%u) {pieces = (piece<0:64, 0:32 @3[0, 0]>,)}
    after   the same, and the graph's attributes converter_ranges {"node": ((input range, output range), ...)} and
            state_windows {"node": window}

    With calibration data, the first `steps` of it: a range is the one that changes the layer's outputs least, what is
    clipped against what is rounded; a window is the largest level that a device of a state's pair reaches there, times
    `headroom`. A signed state lives in two devices that both only decay: their common mode counts, which grows with
    rate times time constant even where the state stays small. Where columns charge nodes, or nodes drive rows, a row's
    full drive is fixed: the range of the DACs that loses least, or the largest |state| times `headroom`. Without data:
    DAC ranges and windows that no input can leave, where norms, tables and bounded functions tell; elsewhere the
    target's own policy. What a program computes is not changed.

    Ranges from few sequences clip more of others; nothing in the few tells (halves of them may agree): runs count it.
    """

    name = "calibrate"
    steps: int = 4096
    headroom: float = 1.25

    def __post_init__(self) -> None:
        if self.steps < 1 or self.headroom < 1:
            raise ValueError("steps must be at least 1 and headroom no less than 1")

    def run(self, graph: Graph, context: Context) -> Graph:
        machine = context.machine
        if context.ideal or machine is None or machine.converters is None:
            return graph
        out = graph.copy()
        if context.calibration:
            used = excerpt(graph, context.calibration, self.steps)
            values = interpret(graph, used, keep=True)
            ranges = _measured_ranges(graph, values, machine.converters, self.headroom)
            windows = _measured_windows(graph, values, self.headroom)
            count = min(len(array) for array in used.values())
            told = f"{count} sequence{'s' * (count != 1)} of the calibration data"
        else:
            ranges, windows = _safe(graph, machine.converters)
            told = "norms"
        out.attributes["converter_ranges"] = ranges
        out.attributes["state_windows"] = windows
        if ranges or windows:
            arrays = sum(any(pair) for pairs in ranges.values() for pair in pairs)
            context.note(self, "", f"from {told}: ranges of {arrays} arrays, windows of {len(windows)} layers' states")
        return out


Ranges = dict[str, tuple[tuple[float, float], ...]]


def _measured_ranges(graph: Graph, values: Mapping[str, Array], converters: Converters, headroom: float) -> Ranges:
    """(input range, output range) of each piece of each matrix; 0 leaves it to the target."""
    found: Ranges = {}
    coupled = graph.attributes.get("coupling", {}).values()
    charging, driven = ({sides[side] for sides in coupled if side in sides} for side in ("in", "out"))
    for node in graph.nodes("tile.matmul", "tile.feedback"):
        source = Value(node.name) if node.op.name == "tile.feedback" else graph.operand(node.name, 0)
        x = values[str(source)]
        flat = x.reshape(-1, node.op["weight"].shape[0])
        flat = flat[np.linspace(0, len(flat) - 1, min(VECTORS, len(flat))).astype(int)]
        fixed: float | None = None
        if node.name in charging:  # no digital scale follows the vector
            fixed = best_range(flat, converters.dac_bits, np.square(node.op["weight"].array).sum(1))
        elif node.name in driven:
            fixed = headroom * float(np.abs(x).max(initial=0.0))
        found[node.name] = tuple(_piece_ranges(node, piece, flat, converters, fixed) for piece in node.op["pieces"])
    return found


def _piece_ranges(
    node: Node, piece: Piece, x: Array, converters: Converters, fixed: float | None
) -> tuple[float, float]:
    """`fixed` is what drives a row fully where that is one for the whole matrix."""
    weight = node.op["weight"]
    block = weight.part(slice(piece.k0, piece.k1), slice(piece.n0, piece.n1))
    scale = full_scale(weight, piece)
    driven = x[:, piece.k0 : piece.k1]
    if fixed is not None:
        input_range = fixed or 1.0
        reach = np.full((len(driven), 1), input_range)
        driven = np.clip(driven, -reach, reach)
    elif converters.each_vector:
        input_range = 0.0
        reach = np.abs(driven).max(1, keepdims=True)
        reach = np.where(reach == 0, 1.0, reach)
    else:  # an input's error reaches the outputs through its row
        input_range = best_range(driven, converters.dac_bits, np.square(block).sum(1))
        reach = np.full((len(driven), 1), input_range or 1.0)
        driven = np.clip(driven, -reach, reach)
    relative = block / scale
    sums = (driven / reach) @ relative
    most = float(np.abs(relative).sum(0).max(initial=0.0))
    return input_range, best_range(sums, converters.adc_bits, np.square(reach * scale), most)


def _measured_windows(graph: Graph, values: Mapping[str, Array], headroom: float) -> dict[str, float]:
    windows = {}
    for node in graph.nodes("tile.state"):
        if node.op["bank"] != "volatile":
            continue
        drive, dt, _ = (*graph.operands(node.name), None, None)[:3]
        assert drive is not None
        v = values[str(drive)]
        elapsed = None if dt is None or not node.op["asynchronous"] else values[str(dt)].reshape(*v.shape[:2])
        if node.op["reverse"]:
            v = v[:, ::-1]
        windows[node.name] = headroom * pair_level(node.op["decay"].array, v, elapsed)
    return windows


def pair_level(decay: Array, drive: Array, dt: Array | None) -> float:
    """The largest level that a device of a state's pair reaches: `p <- |a| p + max(v, 0)`, `m <- |a| m + max(-v, 0)`.

    `decay` (S,) Abar, or its logarithm in one unit of time where `dt` (batch, time) is given; `drive` (batch, time, S
    or 2 S) in halves where the states are complex. What turns is driven in its rotating frame, `exp(-i w t) v`.
    """
    rate = decay.real if dt is not None else np.log(np.maximum(np.abs(decay), 1e-300))
    turn = np.imag(decay) if dt is not None else np.angle(decay)
    steps = drive.shape[1]
    gaps = np.ones((1, steps)) if dt is None else dt
    half = len(decay)
    v = join_halves(drive, drive.shape[2] == 2 * half)
    since = np.cumsum(gaps, axis=1)
    halves = 2 if np.iscomplexobj(v) or np.any(turn) else 1
    levels, most = np.zeros((2 * halves, len(v), half)), 0.0  # of plus and minus devices, real and imaginary
    for k in range(steps):
        now = v[:, k] * np.exp(-1j * turn * since[:, k, None]) if np.any(turn) else v[:, k]
        parts = (now.real, now.imag)[:halves]
        levels *= np.exp(rate * gaps[:, k, None])
        levels += np.maximum([*parts, *(-part for part in parts)], 0)
        most = max(most, float(levels.max(initial=0.0)))
    return most


def _safe(graph: Graph, converters: Converters) -> tuple[Ranges, dict[str, float]]:
    """What no input can leave: |x| by norms, and `|drive| / (1 - |Abar|)` for each device of a pair."""
    largest = largest_values(graph)
    ranges: Ranges = {}
    for node in graph.nodes("tile.matmul"):
        reach = largest[graph.operand(node.name, 0)]
        if not converters.each_vector and np.isfinite(reach) and reach > 0:
            ranges[node.name] = ((reach, 0.0),) * len(node.op["pieces"])
    windows = {}
    for node in graph.nodes("tile.state"):
        level: Any = largest[Value(node.name)]
        if node.op["bank"] == "volatile" and np.isfinite(level) and level > 0:
            windows[node.name] = float(level)
    return ranges, windows
