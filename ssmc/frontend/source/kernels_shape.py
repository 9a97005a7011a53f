"""How ops are computed that only move numbers, or ask for a shape: reshaping, slicing, gathering, padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssmc.frontend.source.kernels_time import LeftToReference
from ssmc.frontend.source.operands import (
    Attrs,
    axes_of,
    pad_widths,
    reshape_target,
    slices_of,
    split_sizes,
    text,
)


def _unsqueeze(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    axes = axes_of(x, attrs, 1, ()) or []
    rank = x[0].ndim + len(axes)
    new = {a % rank for a in axes}
    if len(new) < len(axes):
        raise ValueError(f"the axes {axes} name one twice")
    sizes = iter(x[0].shape)
    return (x[0].reshape([1 if axis in new else next(sizes) for axis in range(rank)]),)


def _squeeze(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    axes = axes_of(x, attrs, 1)
    return (np.squeeze(x[0]) if axes is None else np.squeeze(x[0], tuple(axes)),)


def _reshape(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    wanted = x[1] if len(x) > 1 else attrs["shape"]
    return (x[0].reshape(reshape_target(x[0].shape, [int(d) for d in wanted], bool(attrs.get("allowzero", 0)))),)


def _transpose(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    return (np.transpose(x[0], attrs.get("perm")),)


def _slice(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    index: list[Any] = [slice(None)] * x[0].ndim
    for axis, part in slices_of(x, attrs, x[0].ndim):
        index[axis] = part
    return (x[0][tuple(index)],)


def _gather(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    return (np.take(x[0], np.asarray(x[1]).astype(np.int64), axis=attrs.get("axis", 0)),)


def _gather_nd(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    index, outer = np.asarray(x[1]).astype(np.int64), int(attrs.get("batch_dims", 0))
    samples = np.meshgrid(*map(np.arange, index.shape[:outer]), indexing="ij")
    before = [s.reshape(*s.shape, *[1] * (index.ndim - 1 - outer)) for s in samples]
    return (x[0][(*before, *np.moveaxis(index, -1, 0))],)


def _gather_elements(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    index, axis = np.asarray(x[1]).astype(np.int64), int(attrs.get("axis", 0)) % x[0].ndim
    near = x[0][tuple(slice(None if i == axis else d) for i, d in enumerate(index.shape))]
    return (np.take_along_axis(near, index, axis),)


WRITTEN = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def _written(data: Any, place: tuple[Any, ...], updates: Any, attrs: Attrs) -> Sequence[Any]:
    """A copy of the data with the updates at a place; of what is written twice to one place the last stays."""
    y, updates = (
        np.array(data, np.result_type(data, updates) if np.iscomplexobj(updates) else None),
        np.asarray(updates),
    )
    if updates.shape != y[place].shape:
        raise ValueError(f"updates of {updates.shape} do not fit the indices")
    reduction = text(attrs.get("reduction", "none"))
    if reduction == "none":
        y[place] = updates
    else:
        WRITTEN[reduction].at(y, place, updates)
    return (y,)


def _scatter_elements(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    index, axis = np.asarray(x[1]).astype(np.int64), int(attrs.get("axis", 0)) % x[0].ndim
    places: list[Any] = list(np.ogrid[tuple(slice(d) for d in index.shape)])
    places[axis] = index
    return _written(x[0], tuple(places), x[2], attrs)


def _scatter_nd(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    return _written(x[0], tuple(np.moveaxis(np.asarray(x[1]).astype(np.int64), -1, 0)), x[2], attrs)


def _split(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    bounds = np.cumsum(split_sizes(x, attrs, results))[:-1]
    return np.split(x[0], bounds, axis=attrs.get("axis", 0))


def _expand(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    shape = np.broadcast_shapes(x[0].shape, tuple(int(d) for d in x[1]))
    return (np.broadcast_to(x[0], shape),)


def _shape(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    return (np.asarray(x[0].shape[slice(attrs.get("start", 0), attrs.get("end"))], np.int64),)


def _constant_of_shape(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    from onnx import numpy_helper

    value = numpy_helper.to_array(attrs["value"]) if "value" in attrs else np.zeros(1)
    return (np.full(tuple(int(d) for d in x[0]), value.reshape(-1)[0]),)


def _pad(x: Sequence[Any], attrs: Attrs, results: int) -> Sequence[Any]:
    if text(attrs.get("mode", "constant")) != "constant":
        raise LeftToReference("only constant padding")
    widths, value = pad_widths(x, attrs)
    shape = [s + a + b for s, (a, b) in zip(x[0].shape, widths, strict=True)]
    dtype = np.result_type(x[0], value) if isinstance(value, complex) else x[0].dtype
    y = np.full(shape, value, dtype) if value else np.zeros(shape, dtype)
    source = tuple(slice(max(-a, 0), s - max(-b, 0)) for s, (a, b) in zip(x[0].shape, widths, strict=True))
    target = tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(y.shape, widths, strict=True))
    y[target] = x[0][source]
    return (y,)


SHAPE_KERNELS: dict[str, Callable[[Sequence[Any], Attrs, int], Sequence[Any]]] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Shape": _shape,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Size": lambda x, attrs, results: (np.asarray(x[0].size, np.int64),),
    "Flatten": lambda x, attrs, results: (
        x[0].reshape(int(np.prod(x[0].shape[: attrs.get("axis", 1)], dtype=np.int64)), -1),
    ),
    "Concat": lambda x, attrs, results: (np.concatenate([np.asarray(a) for a in x], axis=attrs["axis"]),),
}
