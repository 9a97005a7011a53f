"""Ops within one time step: matrices, norms, and the shape of the feature axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ssmc.ir.functions import REDUCE
from ssmc.ir.op import Array, Attribute, Op, OpSpec
from ssmc.ir.ops.elementwise import aligned
from ssmc.ir.tensor import Tensor, times
from ssmc.ir.types import Element, FlowType, ValueType, join, outer_axes, with_shape


def _axis(kind: FlowType, axis: int) -> int:
    """A feature axis counted from the right (-1 is the last). Raises ValueError outside the shape."""
    if not -len(kind.shape) <= axis < 0:
        raise ValueError(f"axis {axis} is outside the feature shape {kind.shape}; count from the right, -1 is the last")
    return axis


def _linear_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    x, weight = kinds[0], op["weight"]
    if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[0]:
        raise ValueError(f"a weight of shape {weight.shape} (inputs, outputs) does not fit features {x.shape}")
    if op["bias"] is not None and op["bias"].shape != (weight.shape[1],):
        raise ValueError(f"a bias of shape {op['bias'].shape} does not fit {weight.shape[1]} outputs")
    element: Element = "complex" if x.element == "complex" or weight.is_complex else "real"
    return (with_shape(x, (*x.shape[:-1], weight.shape[1]), element),)


def _linear(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    y = times(arrays[0], op["weight"].stored)
    if op["bias"] is None:
        return (y,)
    bias = op["bias"].array
    return (np.add(y, bias, out=y if np.result_type(y, bias) == y.dtype else None),)


def _norm_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    if op["kind"] not in ("layer", "rms"):
        raise ValueError(f"a norm is 'layer' or 'rms', not '{op['kind']}'")
    if op["groups"] < 1 or kinds[0].shape[-1] % op["groups"]:
        raise ValueError(f"{op['groups']} groups do not divide {kinds[0].shape[-1]} features")
    for name in ("scale", "shift"):
        if op[name] is not None and op[name].shape != (kinds[0].shape[-1],):
            raise ValueError(f"'{name}' of shape {op[name].shape} does not fit features {kinds[0].shape}")
    return (kinds[0],)


def _norm(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    x = arrays[0]
    grouped = x.reshape(*x.shape[:-1], op["groups"], -1)
    if op["kind"] == "layer":
        grouped = grouped - grouped.mean(-1, keepdims=True)
    y = (grouped / np.sqrt(np.mean(grouped**2, -1, keepdims=True) + op["epsilon"])).reshape(x.shape)
    y = y if op["scale"] is None else y * op["scale"].array
    return (y if op["shift"] is None else y + op["shift"].array,)


def _softmax_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    _axis(kinds[0], -1)
    return (kinds[0],)


def _softmax(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    shifted = arrays[0] - arrays[0].max(-1, keepdims=True)
    if op["log"]:
        return (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)),)
    e = np.exp(shifted)
    return (e / e.sum(-1, keepdims=True),)


def _reduce_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    if op["fn"] not in REDUCE:
        raise ValueError(f"no reduction '{op['fn']}'; there are: {', '.join(REDUCE)}")
    kind = kinds[0]
    axes = {_axis(kind, axis) + len(kind.shape) for axis in op["axes"]}
    shape = tuple(1 if i in axes else d for i, d in enumerate(kind.shape) if op["keepdims"] or i not in axes)
    return (with_shape(kind, shape),)


def _reduce(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    return (np.asarray(REDUCE[op["fn"]](arrays[0], axis=op["axes"], keepdims=op["keepdims"])),)


def _concat_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    axis = _axis(kinds[0], op["axis"])
    bare = [with_shape(k, tuple(1 if i == len(k.shape) + axis else d for i, d in enumerate(k.shape))) for k in kinds]
    if len({k.shape for k in bare}) != 1:
        raise ValueError(f"shapes {', '.join(str(k.shape) for k in kinds)} do not join on axis {axis}")
    shape = list(kinds[0].shape)
    shape[axis] = sum(k.shape[axis] for k in kinds)
    return (with_shape(join(*bare), tuple(shape)),)


def _concat(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    whole: Any = _concat_type(op, kinds)[0]
    outer = np.broadcast_shapes(
        *(
            a.shape[: outer_axes(whole)]
            for a, k in zip(arrays, kinds, strict=True)
            if outer_axes(k) == outer_axes(whole)
        )
    )
    parts = []
    for array, kind in zip(arrays, kinds, strict=True):
        if outer_axes(kind) == 1 and outer_axes(whole) == 2:
            array = np.expand_dims(array, 1)
        parts.append(np.broadcast_to(array, (*outer, *kind.shape)))
    return (np.concatenate(parts, op["axis"]),)


def _slice_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    kind, axis = kinds[0], _axis(kinds[0], op["axis"])
    shape = list(kind.shape)
    shape[axis] = len(range(shape[axis])[slice(op["start"], op["stop"], op["step"])])
    return (with_shape(kind, tuple(shape)),)


def _slice(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    index: list[Any] = [slice(None)] * arrays[0].ndim
    index[op["axis"]] = slice(op["start"], op["stop"], op["step"])
    return (np.ascontiguousarray(arrays[0][tuple(index)]),)


def _take_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    kind, axis = kinds[0], _axis(kinds[0], op["axis"])
    index = op["index"].array
    if index.size and not -kind.shape[axis] <= index.min() <= index.max() < kind.shape[axis]:
        raise ValueError(f"an index of {index.tolist()} is outside axis {axis} of {kind.shape}")
    shape = list(kind.shape)
    shape[axis : len(shape) + axis + 1 if axis != -1 else None] = [index.size] if index.ndim else []
    return (with_shape(kind, tuple(shape)),)


def _take(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    return (np.take(arrays[0], op["index"].array, axis=op["axis"]),)


def _reshape_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    if prod(op["shape"]) != prod(kinds[0].shape):
        raise ValueError(f"features {kinds[0].shape} cannot take the shape {op['shape']}")
    return (with_shape(kinds[0], op["shape"]),)


def _reshape(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    return (arrays[0].reshape(arrays[0].shape[: outer_axes(kinds[0])] + op["shape"]),)


def _transpose_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    if sorted(op["permutation"]) != list(range(len(kinds[0].shape))):
        raise ValueError(f"{op['permutation']} is not a permutation of the {len(kinds[0].shape)} feature axes")
    return (with_shape(kinds[0], tuple(kinds[0].shape[i] for i in op["permutation"])),)


def _transpose(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    outer = outer_axes(kinds[0])
    order = (*range(outer), *(outer + i for i in op["permutation"]))
    return (np.ascontiguousarray(arrays[0].transpose(order)),)


def _broadcast_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    if np.broadcast_shapes(kinds[0].shape, op["shape"]) != op["shape"]:
        raise ValueError(f"features {kinds[0].shape} cannot be broadcast to {op['shape']}")
    return (with_shape(kinds[0], op["shape"]),)


def _broadcast(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    x, outer = arrays[0], outer_axes(kinds[0])
    x = x.reshape(x.shape[:outer] + (1,) * (len(op["shape"]) - len(kinds[0].shape)) + x.shape[outer:])
    return (np.ascontiguousarray(np.broadcast_to(x, x.shape[:outer] + op["shape"])),)


def _contract_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    joined = join(*(with_shape(k, ()) for k in kinds))
    sizes: dict[str, int] = {}
    terms, _, result = op["equation"].partition("->")
    for term, kind in zip(terms.split(","), kinds, strict=True):
        if len(term) != len(kind.shape):
            raise ValueError(f"term '{term}' of '{op['equation']}' does not name the axes of {kind.shape}")
        for letter, size in zip(term, kind.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"axis '{letter}' of '{op['equation']}' is {sizes[letter]} and {size}")
    return (with_shape(joined, tuple(sizes[letter] for letter in result)),)


def _contract(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    terms, _, result = op["equation"].partition("->")
    named = [("YZ"[2 - outer_axes(k) :] if outer_axes(k) == 2 else "Y" * outer_axes(k)) for k in kinds]
    outer = "YZ" if "YZ" in named else "Y" if "Y" in named else ""
    spelled = ",".join(n + t for n, t in zip(named, terms.split(","), strict=True))
    return (np.einsum(f"{spelled}->{outer}{result}", *arrays),)


def _embed_type(op: Op, kinds: Sequence[Any]) -> tuple[ValueType, ...]:
    return (with_shape(kinds[0], (*kinds[0].shape, *op["table"].shape[1:]), "real"),)


def _embed(op: Op, arrays: Sequence[Any], kinds: Sequence[Any]) -> tuple[Array, ...]:
    index = np.asarray(arrays[0]).astype(np.int64)
    rows = op["table"].shape[0]
    if index.size and not -rows <= index.min() <= index.max() < rows:
        raise ValueError(f"an index of {index.min()}..{index.max()} is outside a table of {rows} rows")
    return (np.asarray(op["table"].stored[index], np.float64),)


AXIS = Attribute("axis", int, "feature axis counted from the right, -1 is the last", -1)

SPECS = (
    OpSpec(
        "linear",
        "ssm",
        ("x",),
        ("y",),
        (
            Attribute("weight", Tensor, "(inputs, outputs)"),
            Attribute("bias", Tensor, "(outputs,)", None),
        ),
        _linear_type,
        _linear,
        "y = x weight + bias on the last feature axis.",
    ),
    OpSpec(
        "norm",
        "ssm",
        ("x",),
        ("y",),
        (
            Attribute("kind", str, "'layer' (subtracts the mean) or 'rms'"),
            Attribute("epsilon", float, "added to the variance"),
            Attribute("scale", Tensor, "(features,)", None),
            Attribute("shift", Tensor, "(features,)", None),
            Attribute("groups", int, "features are normalised in this many equal groups", 1),
        ),
        _norm_type,
        _norm,
        "Layer norm (arXiv 1607.06450) or RMS norm (arXiv 1910.07467) over the last feature axis.",
    ),
    OpSpec(
        "softmax",
        "ssm",
        ("x",),
        ("y",),
        (Attribute("log", bool, "log-softmax", False),),
        _softmax_type,
        _softmax,
        "Softmax over the last feature axis.",
    ),
    OpSpec(
        "reduce",
        "ssm",
        ("x",),
        ("y",),
        (
            Attribute("fn", str, "a name of `ssmc.ir.functions.REDUCE`"),
            Attribute("axes", tuple, "feature axes counted from the right"),
            Attribute("keepdims", bool, "keep reduced axes with size one", True),
        ),
        _reduce_type,
        _reduce,
        "Reduce over feature axes.",
    ),
    OpSpec("concat", "ssm", ("x*",), ("y",), (AXIS,), _concat_type, _concat, "Join on a feature axis."),
    OpSpec(
        "slice",
        "ssm",
        ("x",),
        ("y",),
        (
            AXIS,
            Attribute("start", int, "as in Python", None),
            Attribute("stop", int, "as in Python", None),
            Attribute("step", int, "as in Python", 1),
        ),
        _slice_type,
        _slice,
        "A part of a feature axis.",
    ),
    OpSpec(
        "take",
        "ssm",
        ("x",),
        ("y",),
        (AXIS, Attribute("index", Tensor, "a scalar (the axis vanishes) or a vector of positions")),
        _take_type,
        _take,
        "Entries of a feature axis by position.",
    ),
    OpSpec(
        "reshape",
        "ssm",
        ("x",),
        ("y",),
        (Attribute("shape", tuple, "the new feature shape"),),
        _reshape_type,
        _reshape,
        "The same numbers in another feature shape (row-major).",
    ),
    OpSpec(
        "transpose",
        "ssm",
        ("x",),
        ("y",),
        (Attribute("permutation", tuple, "of the feature axes"),),
        _transpose_type,
        _transpose,
        "Permute feature axes.",
    ),
    OpSpec(
        "broadcast",
        "ssm",
        ("x",),
        ("y",),
        (Attribute("shape", tuple, "the feature shape to fill"),),
        _broadcast_type,
        _broadcast,
        "Repeat along feature axes of size one (and new leading ones).",
    ),
    OpSpec(
        "contract",
        "ssm",
        ("a", "b"),
        ("y",),
        (Attribute("equation", str, "an einsum over feature axes, lower-case letters, as in 'hn,n->h'"),),
        _contract_type,
        _contract,
        "Product of two computed values summed over shared feature axes, at every step.",
    ),
    OpSpec(
        "embed",
        "ssm",
        ("index",),
        ("y",),
        (Attribute("table", Tensor, "(rows, features)"),),
        _embed_type,
        _embed,
        "Row `index` of a table.",
    ),
)

__all__ = ["SPECS", "aligned"]
