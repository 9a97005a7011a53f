"""What no node may be given, whatever it is given it for: strides of 0, lengths below 1, groups of nothing, modes that
are none.

It is told before anything runs: onnxruntime ends the process on some of it, and elsewhere what it breaks says nothing
of it. The least numbers are those of the ONNX operator specification; the largest are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.announced import MAX_RESULT
from ssmc.frontend.source.evaluate import body_of
from ssmc.frontend.source.forms import HINT
from ssmc.frontend.source.listing import Call, Listing

WINDOWS = {"strides": 1, "dilations": 1, "kernel_shape": 1, "pads": 0}

# The least that the numbers of an attribute may be.
ATTRIBUTES: dict[str, dict[str, int]] = {
    **{kind: {**WINDOWS, "group": 1} for kind in ("Conv", "ConvTranspose")},
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), WINDOWS),
    **{kind: {"blocksize": 1} for kind in ("DepthToSpace", "SpaceToDepth")},
    **{kind: {"hidden_size": 1} for kind in ("LSTM", "GRU", "RNN")},
    "GroupNormalization": {"num_groups": 1},
    "LRN": {"size": 1},
    "LpPool": {**WINDOWS, "p": 1},
    "MaxRoiPool": {"pooled_shape": 1},
    "Split": {"num_outputs": 1},
}

FILTERS = ("Conv", "FusedConv", "ConvTranspose")
POOLS = ("AveragePool", "MaxPool", "LpPool")
AXES = ("axis", "axes", "batch_axis", "time_axis", "perm")
# Attributes that are 0 or 1.
FLAGS = (
    frozenset(["allowzero", "ceil_mode", "count_include_pad", "exclude_outside", "exclusive", "fmod"])
    | frozenset(["interleaved", "inverse", "keepdims", "largest", "layout", "linear_before_reset"])
    | frozenset(["new_axis", "noop_with_empty_axes", "onesided", "reverse", "saturate", "select_last_index"])
    | frozenset(["sorted", "storage_order", "training_mode", "transA", "transB", "upper"])
)
MOST_AXES = 64  # of a tensor (ours)

# The words that an attribute may be.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    **{kind: {"auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")} for kind in (*FILTERS, *POOLS)},
    **{kind: {"direction": ("forward", "reverse", "bidirectional")} for kind in ("LSTM", "GRU", "RNN")},
    **{kind: {"reduction": ("none", "add", "mul", "max", "min")} for kind in ("ScatterElements", "ScatterND")},
    "BitShift": {"direction": ("LEFT", "RIGHT")},
    "DepthToSpace": {"mode": ("DCR", "CRD")},
    "Gelu": {"approximate": ("none", "tanh")},
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "Resize": {
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    },
}

# The name of an operand, and the least that its numbers may be; 0 of a float is more than 0.
OPERANDS: dict[str, dict[int, tuple[str, int]]] = {
    "STFT": {1: ("frame_step", 1), 3: ("frame_length", 1)},
    "DFT": {1: ("dft_length", 1)},
    "MelWeightMatrix": {0: ("num_mel_bins", 1), 1: ("dft_length", 1), 2: ("sample_rate", 1)},
    **{kind: {0: ("size", 1)} for kind in ("HannWindow", "HammingWindow", "BlackmanWindow")},
    **{kind: {1: ("scales", 0), 2: ("scales", 0), 3: ("sizes", 1)} for kind in ("Resize", "Upsample")},
    "Split": {1: ("split", 0)},
    "SplitToSequence": {1: ("split", 0)},
    "OneHot": {1: ("depth", 1)},
    "TopK": {1: ("k", 0)},
    "Tile": {1: ("repeats", 0)},
    "ConstantOfShape": {0: ("shape", 0)},
    "CenterCropPad": {1: ("shape", 0)},
    "AffineGrid": {1: ("size", 1)},
    "Col2Im": {1: ("image_shape", 1), 2: ("block_shape", 1)},
}


def require_allowed(listing: Listing) -> None:
    """Raise UserError for the first node, of the listing or of a body in it, that is given what it may not be."""
    for call in listing.calls:
        arrays = [None if v is None else listing.constants.get(v) for v in call.operands]
        told = forbidden(call, arrays)
        if told is not None:
            raise UserError(f"'{call.kind}' has {told}", node=call.name, hint=HINT)
        for name in call.op["regions"]:
            require_allowed(body_of(call, name))


def forbidden(call: Call, arrays: Sequence[Any]) -> str | None:
    """What a node may not be given, of operands as far as they are known (None elsewhere); None if there is nothing."""
    others = OTHERS.get(call.kind, _nothing)(call, arrays)
    return next(chain(_words(call), _attributes(call.kind, call), _operands(call.kind, arrays), others), None)


def _words(call: Call) -> Iterator[str]:
    for name, known in WORDS.get(call.kind, {}).items():
        if name in call.attrs and (word := _shown(call.attrs[name])) not in known:
            yield f"{name} '{word}' (one of {', '.join(known)})"


def _shown(word: object) -> str:
    """A word of a file, whatever its bytes are."""
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)


def _attributes(kind: str, call: Call) -> Iterator[str]:
    for name, value in call.attrs.items():
        if name in FLAGS and value not in (0, 1):
            yield f"{name} {value} (0 or 1)"
        if isinstance(value, float) and (np.isnan(value) or (name == "epsilon" and not 0 <= value < np.inf)):
            yield f"{name} {value}{' (a small number, not below 0)' if name == 'epsilon' else ''}"
    for name, least in ATTRIBUTES.get(kind, {}).items():
        numbers = np.ravel(call.attrs.get(name, least))
        if numbers.dtype.kind != "i":
            continue
        if len(wrong := numbers[numbers < least]):
            yield f"{name} {wrong[0]} (at least {least})"
        elif len(wrong := numbers[numbers > MAX_RESULT]):
            yield f"{name} {wrong[0]} (at most {MAX_RESULT})"
    for name in AXES:
        axes = np.ravel(call.attrs.get(name, 0))
        if axes.dtype.kind == "i" and len(wrong := axes[(axes < -MOST_AXES) | (axes >= MOST_AXES)]):
            yield f"{name} {wrong[0]}, where a tensor has {MOST_AXES} axes at most"


def _operands(kind: str, arrays: Sequence[Any]) -> Iterator[str]:
    for slot, (name, least) in OPERANDS.get(kind, {}).items():
        array = arrays[slot] if slot < len(arrays) else None
        if array is None or np.asarray(array).dtype.kind not in "iuf":
            continue
        numbers = np.ravel(array)
        real = numbers.dtype.kind == "f" and least == 0
        if len(wrong := numbers[~((numbers > 0) & (numbers < np.inf))] if real else numbers[numbers < least]):
            yield f"{name} {wrong[0]} ({'more than 0' if real else f'at least {least}'})"


def _nothing(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    return iter(())


def _not_zero(slot: int, name: str, kinds: str) -> Callable[[Call, Sequence[Any]], Iterator[str]]:
    def told(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
        array = arrays[slot] if slot < len(arrays) else None
        if array is not None and np.asarray(array).dtype.kind in kinds and not np.all(array):
            yield f"{name} of 0"

    return told


def _one_number(slot: int, name: str) -> Callable[[Call, Sequence[Any]], Iterator[str]]:
    def told(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
        array = arrays[slot] if slot < len(arrays) else None
        if array is not None and np.size(array) != 1:
            yield f"{np.size(array)} numbers for its {name} (one)"

    return told


def _window(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    window = arrays[2] if len(arrays) > 2 else None
    if window is not None and (np.ndim(window) != 1 or not np.size(window)):
        yield f"a window of shape {np.shape(window)}, which is no row of weights"


def _one_part(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    size = arrays[1] if len(arrays) > 1 else None
    if size is not None and not np.ndim(size) and not np.all(size):
        yield "parts of 0 entries each"


def _scale(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    scale = arrays[1] if len(arrays) > 1 else None
    if scale is not None and np.asarray(scale).dtype.kind == "b":
        yield "a scale of truth values, not of numbers"


def _turned_axes(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    axes = {"batch_axis": int(call.attrs.get("batch_axis", 1)), "time_axis": int(call.attrs.get("time_axis", 0))}
    yield from (f"{name} {axis} (an axis, from 0 on)" for name, axis in axes.items() if axis < 0)
    if axes["batch_axis"] == axes["time_axis"]:
        yield f"one axis, {axes['time_axis']}, for its sequences and for their steps"
    lengths = arrays[1] if len(arrays) > 1 else None
    if lengths is not None and (np.ndim(lengths) != 1 or not np.size(lengths)):
        yield f"lengths of shape {np.shape(lengths)}, which are no row of numbers"


def _variance(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    least = -float(call.attrs.get("epsilon", 1e-5))
    if len(arrays) > 4 and arrays[4] is not None and np.min(arrays[4], initial=0.0) < least:
        yield f"a variance of {float(np.min(arrays[4])):g}"


def _order(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    if (p := int(call.attrs.get("p", 2))) not in (1, 2):
        yield f"p {p} (1 or 2)"


def _some_axes(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    axes = arrays[1] if len(arrays) > 1 else call.attrs.get("axes")
    if axes is not None and not np.size(axes):
        yield "no number in its axes, which is read as none or as all of size 1 (leave axes out for these)"


def _filter(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    weights = arrays[1] if len(arrays) > 1 else None
    if weights is None:
        return
    shape, groups = np.shape(weights), int(call.attrs.get("group", 1))
    if len(shape) < 3:
        yield f"weights of {len(shape)} axes (at least 3)"
        return
    if shape[0] % groups:
        yield f"group {groups}, which does not divide the {shape[0]} rows of its weights"
    elif tuple(call.attrs.get("kernel_shape", shape[2:])) != shape[2:]:
        yield f"kernel_shape {tuple(call.attrs['kernel_shape'])} and weights of shape {shape}"
    bias = arrays[2] if len(arrays) > 2 else None
    rows = shape[0] if call.kind != "ConvTranspose" else shape[1] * groups
    if bias is not None and np.shape(bias) != (rows,):
        yield f"a bias of shape {np.shape(bias)}, where its weights give {rows} channels"
    yield from _lengths(call, len(shape) - 2)


def _pool(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    return _lengths(call, len(call.attrs.get("kernel_shape", ())))


def _lengths(call: Call, axes: int) -> Iterator[str]:
    """Rows of numbers that are not one (of pads two) for each axis that a window moves along."""
    for name, each in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2)):
        if name in call.attrs and len(call.attrs[name]) != each * axes:
            yield f"{name} of {len(call.attrs[name])} numbers (its window has {axes} axes: {each * axes} numbers)"


def _equation(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    equation = _shown(call.attrs["equation"])
    left, _, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    told = f"the equation '{equation}'"
    if not all(re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", term) for term in (*terms, result)):
        yield f"{told}, of more than letters, commas, '...' and one '->'"
    elif len(terms) != len(arrays):
        yield f"{told}, which is one of {len(terms)} operands, and {len(arrays)} of these"
    elif wrong := [c for c in result.replace(".", "") if c not in left or result.count(c) > 1]:
        yield f"{told}, whose result has the axis '{wrong[0]}' {'twice' if wrong[0] in left else 'that no operand has'}"
    sizes: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=False):
        if array is None or "." in term:
            continue
        if len(term) != np.ndim(array):
            yield f"{told}, which gives {len(term)} axes to an operand of shape {np.shape(array)}"
            continue
        for axis, size in zip(term, np.shape(array), strict=True):
            if size != 1 and sizes.setdefault(axis, size) != size:
                yield f"{told}, where the axis '{axis}' has {sizes[axis]} entries and {size}"


OTHERS: Mapping[str, Callable[[Call, Sequence[Any]], Iterator[str]]] = {
    **dict.fromkeys(FILTERS, _filter),
    **dict.fromkeys(POOLS, _pool),
    "Einsum": _equation,
    "LpNormalization": _order,
    "Squeeze": _some_axes,
    "STFT": _window,
    "SplitToSequence": _one_part,
    "SequenceAt": _one_number(1, "position"),
    "SequenceErase": _one_number(1, "position"),
    "SequenceInsert": _one_number(2, "position"),
    "BatchNormalization": _variance,
    "DequantizeLinear": _scale,
    "QuantizeLinear": _scale,
    "ReverseSequence": _turned_axes,
    "Range": _not_zero(2, "steps", "iuf"),
    "Slice": _not_zero(4, "steps", "iu"),
    "Div": _not_zero(1, "a whole divisor", "iu"),
    "Mod": _not_zero(1, "a whole divisor", "iu"),
}
