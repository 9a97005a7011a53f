"""Recurrences whose states are rounded at every step, as fake-quantised models have them: linear but for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.ir.op import Array, Attribute, Op, OpSpec
from ssmc.ir.ops.temporal import READ_BEFORE, REVERSE
from ssmc.ir.tensor import Tensor
from ssmc.ir.types import SequenceType, StreamType, ValueType

GRID = ("scale", "shift", "zero", "low", "high")
PLACES = ("state", "product", "cross", "turned", "sum")  # where a step may round, in its order
COMPLEX_ONLY = ("cross", "turned")
ROUNDINGS = {"nearest": np.rint, "floor": np.floor, "ceil": np.ceil}


def on_grid(grid: Array, rounding: str, x: Array) -> Array:
    """The grid's value for x: scale (code - zero), code = clip(round(x / scale + shift), low, high)."""
    scale, shift, zero, low, high = grid
    return np.asarray(scale * (np.clip(ROUNDINGS[rounding](x / scale + shift), low, high) - zero))


def rounded_step(
    decay: Array, grids: Mapping[str, Array], rounding: str, is_complex: bool, x: Array, v: Array
) -> tuple[Array, Array]:
    """(what a step reaches, what is kept of it: that on the grid of sums) from the states `x` and the drive `v`.

    `decay` is (n,), each grid (5, n) in rows as in GRID, by the place where it rounds; `x` and `v` are (batch, n).
    """
    x = on_grid(grids["state"], rounding, x) if "state" in grids else x
    product = times(decay, grids, rounding, is_complex, x)[-1]
    product = on_grid(grids["turned"], rounding, product) if "turned" in grids else product
    reached = product + v
    return reached, on_grid(grids["sum"], rounding, reached) if "sum" in grids else reached


def times(
    decay: Array, grids: Mapping[str, Array], rounding: str, is_complex: bool, x: Array
) -> tuple[Array, Array | None, Array]:
    """Products of a step with the states as they are read: own ones, those with the other half, and their sum.

    The first two are not rounded yet; there are no other halves where states are real.
    """
    half = decay.shape[-1] // 2
    p = np.concatenate([decay[..., :half]] * 2, axis=-1) if is_complex else decay
    own = np.asarray(p * x)
    kept = on_grid(grids["product"], rounding, own) if "product" in grids else own
    if not is_complex:
        return own, None, kept
    q = decay[..., half:]
    cross = np.concatenate([q * x[..., half:], q * x[..., :half]], axis=-1)
    turned = on_grid(grids["cross"], rounding, cross) if "cross" in grids else cross
    return (
        own,
        cross,
        np.concatenate([kept[..., :half] - turned[..., :half], kept[..., half:] + turned[..., half:]], -1),
    )


def grids_of(op: Op) -> dict[str, Array]:
    """(5, n) by place, of the places where the op rounds."""
    found = {place: op[f"{place}_grid"] for place in PLACES}
    return {place: grid.array.reshape(len(GRID), -1) for place, grid in found.items() if grid is not None}


def rows_of(op: Op) -> tuple[Array, dict[str, Any]]:
    """What an instruction takes of the op: (1 + 5 n, words) rows, a first, then each grid's; and its other operands."""
    grids, flags = grids_of(op), {name: op[name] for name in ("rounding", "reached")}
    rows = np.concatenate([op["decay"].array.reshape(1, -1), *(grids[place] for place in PLACES if place in grids)])
    return rows, {**flags, "complex": op["is_complex"], **{f"round_{place}": place in grids for place in PLACES}}


def places_of(flag: Callable[[str], Any]) -> list[str]:
    """Where an instruction rounds that has these flags."""
    return [place for place in PLACES if flag(f"round_{place}")]


def count_rows(flag: Callable[[str], Any]) -> int:
    """The rows of `rows_of` that an instruction with these flags takes."""
    return 1 + len(GRID) * len(places_of(flag))


def grids_in(rows: Array, places: Sequence[str]) -> dict[str, Array]:
    """The grids of these places, of rows as `rows_of` gives them."""
    size = len(GRID)
    return {place: rows[1 + k * size : 1 + (k + 1) * size] for k, place in enumerate(places)}


def _rounded_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    v, x0 = kinds
    if not isinstance(v, StreamType) or v.element != "real":
        raise ValueError("'v' must be a stream of real numbers")
    if op["decay"].shape != v.shape or op["decay"].is_complex:
        raise ValueError(f"'decay' has the shape {op['decay'].shape}, the drive {v.shape}")
    if op["rounding"] not in ROUNDINGS:
        raise ValueError(f"'rounding' is one of {', '.join(ROUNDINGS)}")
    for place in PLACES:
        grid = op[f"{place}_grid"]
        if grid is not None and grid.shape != (len(GRID), *v.shape):
            raise ValueError(f"'{place}_grid' has the shape {grid.shape}, the drive {v.shape}")
        if grid is not None and place in COMPLEX_ONLY and not op["is_complex"]:
            raise ValueError(f"'{place}_grid' is for complex states")
    if op["is_complex"] and (len(v.shape) != 1 or v.shape[0] % 2):
        raise ValueError(f"complex states are halves re|im of one axis, the drive has the shape {v.shape}")
    if x0 is not None and x0.shape != v.shape:
        raise ValueError(f"'x0' has the shape {x0.shape}, the drive {v.shape}")
    return (v, SequenceType(v.shape))


def _rounded(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    v, x0 = (*arrays, None)[:2]
    shape = v.shape
    decay, grids = op["decay"].array.reshape(-1), grids_of(op)
    v = v.reshape(*shape[:2], -1)
    v = v[:, ::-1] if op["reverse"] else v
    start = 0.0 if x0 is None else np.asarray(x0, np.float64).reshape(-1, v.shape[2])
    x, y = np.broadcast_to(start, (len(v), v.shape[2])), np.empty(v.shape)
    for k in range(v.shape[1]):
        reached, following = rounded_step(decay, grids, op["rounding"], op["is_complex"], x, v[:, k])
        y[:, k] = x if op["read_before"] else reached if op["reached"] else following
        x = following
    y = np.ascontiguousarray(y[:, ::-1]) if op["reverse"] else y
    return (y.reshape(shape), np.array(x).reshape(shape[0], *shape[2:]))


_ROWS = "rows scale, shift, zero, low, high, a number for each state"

SPECS = (
    OpSpec(
        "rounded",
        "ssm",
        ("v", "x0?"),
        ("x", "last"),
        (
            Attribute("decay", Tensor, "a, a number for each state; halves re|im where complex"),
            Attribute("state_grid", Tensor, f"rounds a state as it is read: {_ROWS}", None),
            Attribute("product_grid", Tensor, "rounds a times the state, Re a where complex, in the same rows", None),
            Attribute("cross_grid", Tensor, "rounds Im a times the other half, in the half it goes to", None),
            Attribute("turned_grid", Tensor, "rounds the sum of both products", None),
            Attribute("sum_grid", Tensor, "rounds what a step reaches, in the same rows", None),
            Attribute("rounding", str, ", ".join(ROUNDINGS), "nearest"),
            Attribute("is_complex", bool, "halves re|im are complex numbers, each half rounded by itself", False),
            Attribute("reached", bool, "x_k is what a step reaches, before `sum_grid` rounds it", False),
            REVERSE,
            READ_BEFORE,
        ),
        _rounded_type,
        _rounded,
        "A diagonal system that is fake-quantised: x_k = S(P(a Q(x_{k-1})) + v_k), where Q, P and S round to the grids "
        "of states, products and sums: scale (clip(round(x / scale + shift), low, high) - zero); nearest is half to "
        "even. A place without a grid does not round. Of complex states, the halves of a x are T(P(p re) - R(q im)) "
        "and T(P(p im) + R(q re)), R the grid of cross products and T that of turned states.",
    ),
)
