"""Bounds on what a changed linear node can do to its output, whatever the input."""

from __future__ import annotations

import numpy as np

from ssmc.ir import Graph, Op
from ssmc.statespace import StateSpace, StateSpaceError, l1_distance

# Multiplications spent on the bound of one system: the rest of a long kernel is bounded more coarsely.
BOUND_WORK = 1 << 22
# Groups times states squared, both systems side by side: more are not bounded.
BOUND_SIZE = 1 << 19
# Entries of a matrix that are compared at once.
WIDE = 1 << 22


def bound(before: Graph, after: Graph, name: str) -> tuple[float | None, str]:
    """`b` with `max|y - y'| <= b max|u|` from a zero state, or None and the reason why there is none."""
    old, new = before.op(name), after.op(name)
    if old.name != new.name:
        return None, "the op became another one"
    if old.name == "ssm":
        return _system_bound(old["system"], new["system"])
    if old.name in ("linear", "tile.matmul"):
        return _matrix_bound(old, new)
    return None, "the node is not a linear system"


def _matrix_bound(old: Op, new: Op) -> tuple[float | None, str]:
    """`||W - W'||` from max norm to max norm: the largest sum of absolute values of a column (Horn & Johnson, 5.6)."""
    if old["weight"].shape != new["weight"].shape:
        return None, "the weight has another shape"
    if old["bias"] != new["bias"]:
        return None, "the bias changed too"
    worst, (rows, columns) = 0.0, old["weight"].shape
    for some in np.array_split(np.arange(columns), 1 + rows * columns // WIDE):
        part = slice(some[0], some[-1] + 1) if len(some) else slice(0, 0)
        lost = np.abs(old["weight"].part(slice(None), part) - new["weight"].part(slice(None), part))
        worst = max(worst, float(lost.sum(axis=0).max(initial=0.0)))
    return worst, ""


def _system_bound(old: StateSpace, new: StateSpace) -> tuple[float | None, str]:
    """`||h - h'||_1`, the largest over the outputs; of groups, each sees its own inputs."""
    if old.asynchronous or new.asynchronous:
        return None, "the decay depends on the elapsed times"
    if old.diagonal and old.groups * (old.states + new.states) ** 2 > BOUND_SIZE:
        return None, f"{old.groups} systems of {old.states} states are too many for a bound in short time"
    try:
        return float(l1_distance(old, new, tolerance=1e-3, budget=BOUND_WORK).max()), ""
    except StateSpaceError as error:
        return None, str(error)
