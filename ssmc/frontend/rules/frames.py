"""Frames of a stream, each so many steps behind the one before: windows for spectra, as `unfold` and STFT take them.

A frame is a step of a slower stream: the steps that it holds are delays of the stream, of which every n-th is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

from ssmc.frontend.graph.builder import Operand
from ssmc.frontend.graph.contraction import einsum
from ssmc.frontend.graph.flow import Flow, Known, Raw, TimeMixing, Tracked, Unsupported
from ssmc.frontend.rules.context import Context, Rule, Surroundings, flow_of, known_of
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.listing import Call
from ssmc.ir.op import Array

LONGEST = 256  # steps that a frame may hold, and whose spectrum is taken (ours: each is a delay of the stream)
MOVES = frozenset(["Slice", "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Identity"])


def frames(context: Context, flow: Flow, positions: Array, axes: Sequence[int]) -> Flow:
    """The steps `positions` (frames, steps of a frame) of a stream, frames and their steps along these `axes` of the
    result, the others as they were. Raises TimeMixing where the frames are not regular."""
    builder, axis = context.builder, flow.axes.index("t")
    count, window = positions.shape
    stride = int(positions[1, 0] - positions[0, 0]) if count > 1 else 1
    spacing = int(positions[0, 1] - positions[0, 0]) if window > 1 else 1
    regular = positions[0, 0] + stride * np.arange(count)[:, None] + spacing * np.arange(window)
    end = int(positions[0, -1])
    if min(stride, spacing) < 1 or np.any(positions != regular):
        raise TimeMixing("it takes single steps")
    if window > LONGEST:
        raise TimeMixing(f"it cuts frames of {window} steps (at most {LONGEST})")
    if len(range(end, flow.shape[axis], stride)) != count:
        raise TimeMixing(
            f"it cuts {count} frames of {window} steps, {stride} apart, of {flow.shape[axis]} steps, fewer than these "
            "hold; give it the steps that it uses"
        )
    letters, shape = list(flow.axes), list(flow.shape)
    del letters[axis], shape[axis]
    for at, a, d in sorted(zip(axes, "tf", (count, 1), strict=True)):
        letters.insert(at, a)
        shape.insert(at, d)
    place = Flow(flow.value, "".join(letters), tuple(shape))
    parts: list[Operand] = [flow.value]
    for _ in range(window - 1):
        parts.insert(0, builder.add("delay", [parts[0]], steps=spacing))
    stacked = builder.concat([builder.reshape(p, place.features) for p in parts], place.from_right(axes[1]))
    value = builder.add("downsample", [stacked], stride=stride, kind="take", offset=end)
    return Flow(value, place.axes, (*shape[: axes[1]], window, *shape[axes[1] + 1 :]))


def joined_frames(translator: Surroundings, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """Frames that were cut out one by one and joined, as torch's `unfold` is exported at a fixed length."""
    if not all(isinstance(item, Raw) for item in items) or len(items) < 2:
        raise Unsupported("it mixes time")
    chains = [_chain(translator, value) for value in call.operands]
    source = chains[0][0]
    flow = translator.lookup(source)
    if not isinstance(flow, Flow) or flow.axes.count("t") != 1 or any(start != source for start, _ in chains):
        raise Unsupported("it mixes time")
    numbers = np.arange(np.prod(flow.shape, dtype=np.int64)).reshape(flow.shape)
    parts = []
    for _, calls in chains:
        part: Any = numbers
        for move in calls:
            others = [translator.lookup(v) for v in move.operands[1:]]
            if any(item is not None and not isinstance(item, Known) for item in others):
                raise Unsupported("it mixes time")
            part = run_call(move, [part, *(o.stored if isinstance(o, Known) else None for o in others)])[0]
        parts.append(part)
    whole = np.asarray(run_call(call, parts)[0])
    axis = flow.axes.index("t")
    steps = np.unravel_index(whole, flow.shape)[axis]
    if whole.ndim != len(flow.shape) + 1:
        raise Unsupported("it mixes time")
    for places in permutations(range(whole.ndim), 2):
        rest = tuple(k for k in range(whole.ndim) if k not in places)
        positions = steps.transpose(*places, *rest).reshape(*(steps.shape[k] for k in places), -1)[..., 0]
        taken = np.moveaxis(np.take(numbers, positions, axis=axis), (axis, axis + 1), places)
        if taken.shape == whole.shape and np.array_equal(taken, whole):
            return [frames(translator, flow, positions, places)]
    raise Unsupported("it mixes time")


def _chain(translator: Surroundings, value: Any) -> tuple[Any, list[Call]]:
    """What a value is cut from, and the calls that do it."""
    calls: list[Call] = []
    while isinstance(translator.lookup(value), Raw):
        call = translator.listing.producer.get(value)
        if call is None or call.kind not in MOVES:
            raise Unsupported("it mixes time")
        calls.insert(0, call)
        value = call.operands[0]
    return value, calls


def _stft(context: Context, call: Call, items: Sequence[Any]) -> list[Tracked]:
    """The Fourier transform of every frame, weighted by the window: a matrix (ONNX, STFT-17)."""
    signal, step = flow_of(items[0]), int(np.reshape(known_of(items[1], "frame_step"), -1)[0])
    if signal.axes == "btf" and signal.shape[2] == 1:
        signal = Flow(context.builder.reshape(signal.value, ()), "bt", signal.shape[:2])  # type: ignore[arg-type]
    if signal.axes != "bt":
        raise Unsupported("its signal is complex" if signal.axes == "btf" else "its signal does not lie along time")
    weights, given = (items[k] if len(items) > k else None for k in (2, 3))
    window = None if weights is None else np.asarray(known_of(weights, "window"), np.float64)
    size = len(window) if window is not None else 0
    size = int(np.reshape(known_of(given, "frame_length"), -1)[0]) if given is not None else size
    if size < 1 or (window is not None and len(window) != size):
        raise Unsupported("it does not tell how many steps a frame has")
    if step < 1:
        raise Unsupported(f"its frames are {step} steps apart")
    if size > signal.shape[1]:
        raise Unsupported(f"its frames hold {size} steps, and its signal {signal.shape[1]}")
    count = (signal.shape[1] - size) // step + 1
    positions = step * np.arange(count)[:, None] + np.arange(size)
    cut = frames(context, signal, positions, (1, 2))
    bins = size // 2 + 1 if call.attrs.get("onesided", 1) else size
    angle = 2 * np.pi * (np.outer(np.arange(size), np.arange(bins)) % size) / size
    matrix = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
    if window is not None:
        matrix = matrix * window[:, None, None]
    return [einsum(context.builder, ["bts", "skp"], "btkp", [cut, Known(matrix)])]


RULES: dict[str, Rule] = {"STFT": _stft}
