"""Numbers that no node may be given, whatever it is given them for: strides of 0, lengths below 1, groups of nothing.

They are told before anything runs: onnxruntime ends the process on some of them, and elsewhere what they break says
nothing of them. The least numbers are those of the ONNX operator specification; the largest are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssmc.diagnostics import UserError
from ssmc.frontend.source.announced import MAX_RESULT
from ssmc.frontend.source.evaluate import body_of
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
    "MaxRoiPool": {"pooled_shape": 1},
    "Split": {"num_outputs": 1},
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
            raise UserError(
                f"'{call.kind}' has {told}",
                node=call.name,
                hint="the file is damaged, or was exported wrongly; export it again, and check it there",
            )
        for name in call.op["regions"]:
            require_allowed(body_of(call, name))


def forbidden(call: Call, arrays: Sequence[Any]) -> str | None:
    """What a node may not be given, of operands as far as they are known (None elsewhere); None if there is nothing."""
    told = (
        *_attributes(call.kind, call),
        *_operands(call.kind, arrays),
        *OTHERS.get(call.kind, _nothing)(call, arrays),
    )
    return next(iter(told), None)


def _attributes(kind: str, call: Call) -> Iterator[str]:
    for name, least in ATTRIBUTES.get(kind, {}).items():
        numbers = np.ravel(call.attrs.get(name, least))
        if numbers.dtype.kind != "i":
            continue
        if len(wrong := numbers[numbers < least]):
            yield f"{name} {wrong[0]} (at least {least})"
        elif len(wrong := numbers[numbers > MAX_RESULT]):
            yield f"{name} {wrong[0]} (at most {MAX_RESULT})"


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


def _window(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    window = arrays[2] if len(arrays) > 2 else None
    if window is not None and (np.ndim(window) != 1 or not np.size(window)):
        yield f"a window of shape {np.shape(window)}, which is no row of weights"


def _one_part(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    size = arrays[1] if len(arrays) > 1 else None
    if size is not None and not np.ndim(size) and not np.all(size):
        yield "parts of 0 entries each"


def _variance(call: Call, arrays: Sequence[Any]) -> Iterator[str]:
    least = -float(call.attrs.get("epsilon", 1e-5))
    if len(arrays) > 4 and arrays[4] is not None and np.min(arrays[4], initial=0.0) < least:
        yield f"a variance of {float(np.min(arrays[4])):g}"


OTHERS: Mapping[str, Callable[[Call, Sequence[Any]], Iterator[str]]] = {
    "STFT": _window,
    "SplitToSequence": _one_part,
    "BatchNormalization": _variance,
    "Range": _not_zero(2, "steps", "iuf"),
    "Slice": _not_zero(4, "steps", "iu"),
    "Div": _not_zero(1, "a whole divisor", "iu"),
    "Mod": _not_zero(1, "a whole divisor", "iu"),
}
