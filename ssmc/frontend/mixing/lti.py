"""Probing a region that mixes time: is it linear, the same at every step, and what is its kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.flow import Unsupported
from ssmc.frontend.mixing.regions import Region
from ssmc.ir.op import Array

TOLERANCE = 1e-9
ROUNDING = 1e-12
UNLIKE = "does not treat all time steps alike"
BY_NUMBER = (
    f"{UNLIKE}, though it is linear: its weights follow the number of the step and not the data, as the gain of a "
    "Kalman filter that runs its covariance along; export it with the gain that this settles at"
)
ECHO = 2e-7  # energy from the future, relative to the past: what a spectrum stored in float32 leaves behind
NOISE = 1e-6  # a tap of it, of the largest from the past
FLAT = 6.0  # a tap of it, of their mean (ours: normal noise has one of 5 in a million)
SHORTEST = 12  # taps that tell noise from a decay (ours)
ROUNDED = 3e-7  # relative: powers of a decay that were folded into float32 tables, others at each step of a tree
UNITS = 8  # roundings of coarser tables that powers in a tree of them are off by (ours)
MAX_INPUTS = 1024  # features of all entries together, for a region in which they may all meet


@dataclass(frozen=True, eq=False)
class Kernels:
    """y_o[k] = offset_o + sum_j (sum_l causal[o, j, l] u_i[k - l] + sum_l future[o, j, l] u_i[k + 1 + l]).

    Here i = inputs[o, j].

    The inputs are the features of all entries, one entry after the other. `axes` are those of the region's target.
    """

    axes: str
    inputs: NDArray[np.int64]  # (outputs, width)
    causal: Array  # (outputs, width, L)
    future: Array | None  # (outputs, width, L - 1)
    offset: Array  # (outputs,)
    error: float


def to_steps(array: Array, axes: str) -> Array:
    """An ONNX tensor as (batch, time, features in one row)."""
    order = [i for letter in "bt" for i, a in enumerate(axes) if a == letter] + [
        i for i, a in enumerate(axes) if a == "f"
    ]
    moved = array.transpose(order)
    moved = moved if "b" in axes else moved[None]
    return moved.reshape(*moved.shape[:2], -1)


def from_steps(steps: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_steps`."""
    order = [i for letter in "bt" for i, a in enumerate(axes) if a == letter] + [
        i for i, a in enumerate(axes) if a == "f"
    ]
    return steps.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def target_axes(region: Region) -> Iterator[str]:
    """Ways to read the axes of a region's target: which is the batch is tried out, time has the entries' length."""
    flow = region.flows[0]
    if any(f.axes.count("t") != 1 for f in region.flows):
        raise Unsupported("meets values that have no time axis")
    if len({"b" in f.axes for f in region.flows}) > 1:
        raise Unsupported("meets values that have no batch axis")
    length = flow.shape[flow.axes.index("t")]
    if length not in region.shape:
        return  # a spectrum, say: told without running anything
    batch = flow.shape[flow.axes.index("b")] if "b" in flow.axes else None
    for b in _batch_axes(region, batch):
        for t, size in enumerate(region.shape):
            if size == length and t != b:
                yield "".join("b" if i == b else "t" if i == t else "f" for i in range(len(region.shape)))


def _batch_axes(region: Region, batch: int | None) -> list[int | None]:
    if batch is None:
        return [None]
    places = [i for i, size in enumerate(region.shape) if size == batch]
    if batch == 1 or not places:
        return list(places)
    first, other = region.samples[0], region.samples[-1]
    second = [a.copy() for a in first]
    for array, new, flow in zip(second, other, region.flows, strict=True):
        if "b" in flow.axes:
            chosen = [slice(None)] * array.ndim
            chosen[flow.axes.index("b")] = slice(0, 1)
            array[tuple(chosen)] = new[tuple(chosen)]
    before = region.run(first)
    change = np.abs(region.run(second) - before)
    # A matrix product may round a row otherwise when another row changes.
    noise = ROUNDING * float(np.abs(before).max(initial=0.0))
    return [i for i in places if not np.any(np.delete(change, 0, axis=i) > noise)]


def probe(region: Region) -> Kernels:
    """The kernels of a region. Raises Unsupported where it is not linear, or not the same at every step."""
    lengths = {f.shape[f.axes.index("t")] for f in region.flows if "t" in f.axes}
    if len(lengths) == 1 and not lengths & set(region.shape):
        shape = " x ".join(map(str, region.shape))
        raise Unsupported(f"{UNLIKE}: of {min(lengths)} steps it makes {shape} numbers, with no axis of so many")
    if len(lengths) != 1:
        raise Unsupported(UNLIKE)
    rng = np.random.default_rng(5)
    zero = region.run([np.zeros(f.shape) for f in region.flows])
    if not np.isfinite(zero).all():
        raise Unsupported("is not linear in the streams that enter it")
    a, b = ([rng.standard_normal(f.shape) for f in region.flows] for _ in range(2))
    ya, yb = region.run(a) - zero, region.run(b) - zero
    both = region.run([x + y for x, y in zip(a, b, strict=True)]) - zero
    scale = max(float(np.abs(both).max(initial=0.0)), 1e-300)
    if not np.isfinite(both).all() or np.abs(both - ya - yb).max(initial=0.0) > TOLERANCE * scale:
        raise Unsupported("is not linear in the streams that enter it")
    nearest: Kernels | None = None
    for axes in target_axes(region):
        for inputs, colours in dependences(region, axes):
            found = impulse_kernels(region, axes, inputs, colours, zero)
            if found is None:
                continue
            error = max(_residual(found, region, x, y) for x, y in ((a, ya), (b, yb))) / scale
            if error <= max(TOLERANCE, 5 * found.error, 5 * region.rounding):
                return found
            if error <= (max(ROUNDED, UNITS * region.stored) if nearest is None else nearest.error / 2):
                nearest = replace(found, error=error)
    if nearest is not None:
        return nearest
    raise Unsupported(BY_NUMBER if next(target_axes(region), None) else UNLIKE)


def _feature_shapes(region: Region, axes: str) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    outputs = tuple(d for d, a in zip(region.shape, axes, strict=True) if a == "f")
    return [f.features for f in region.flows], outputs


def dependences(region: Region, axes: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Which inputs an output may depend on, (outputs, width), the fewest first; and a colour for each input.

    No output depends on two inputs of one colour, so that those of one colour can be probed together.
    """
    shapes, outputs = _feature_shapes(region, axes)
    sizes = [prod(s) for s in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n = prod(outputs)
    aligned = [_aligned(s, outputs) for s in shapes]
    if all(index is not None for index in aligned):
        columns = [start + index for start, index in zip(starts, aligned, strict=False) if index is not None]
        entry = np.repeat(np.arange(len(sizes)), sizes)
        yield np.stack(columns, axis=1), entry
        if outputs and outputs[-1] % 2 == 0 and all(s == outputs for s in shapes):  # complex parts in the last axis
            for partner in _partners(outputs):
                pairs = np.stack([c for column in columns for c in (column, column[partner])], axis=1)
                yield pairs, 2 * entry + np.tile(np.arange(n) > partner, len(sizes))
    if starts[-1] <= MAX_INPUTS:
        yield np.tile(np.arange(starts[-1]), (n, 1)), np.arange(starts[-1])


def _aligned(shape: tuple[int, ...], outputs: tuple[int, ...]) -> NDArray[np.int64] | None:
    """For each output the entry's feature that stands at its place, axes matched from the right or from the left."""
    index = np.arange(prod(shape)).reshape(shape)
    for candidate in (shape, shape + (1,) * (len(outputs) - len(shape))):
        try:
            return np.broadcast_to(index.reshape(candidate), outputs).reshape(-1)
        except ValueError:
            continue
    return None


def _partners(shape: tuple[int, ...]) -> Iterator[NDArray[np.int64]]:
    """The other part of each complex number: neighbours in the last axis, or its halves."""
    index = np.arange(prod(shape)).reshape(-1, shape[-1])
    yield index.reshape(-1, 2)[:, ::-1].reshape(-1)
    if shape[-1] > 2:
        yield np.roll(index, shape[-1] // 2, axis=1).reshape(-1)


def _impulses(region: Region, axes: str, zero: Array, which: Array, at: int) -> Array:
    """Answers (batch, time, outputs) to a one at step `at` in the features `which` (batch, inputs; bool)."""
    arrays, start = [], 0
    for flow in region.flows:
        size = prod(flow.features)
        length = flow.shape[flow.axes.index("t")]
        steps = np.zeros((len(which), length, size))
        steps[:, at] = which[:, start : start + size]
        arrays.append(from_steps(steps, flow.axes, flow.shape))
        start += size
    return to_steps(region.run(arrays) - zero, axes)


def impulse_kernels(
    region: Region, axes: str, inputs: NDArray[np.int64], colours: NDArray[np.int64], zero: Array
) -> Kernels | None:
    """Kernels by impulses, a colour of inputs at a time, different ones in the samples of a batch."""
    outputs, width = inputs.shape
    length, flow = region.shape[axes.index("t")], region.flows[0]
    batch = flow.shape[flow.axes.index("b")] if "b" in flow.axes else 1
    resting = to_steps(zero, axes)
    size = max(float(np.abs(resting).max(initial=0.0)), 1e-300)
    if np.abs(resting - resting[:1, :1]).max(initial=0.0) > TOLERANCE * size:
        return None  # an offset that changes with time
    causal, future = np.zeros((outputs, width, length)), np.zeros((outputs, width, length - 1))
    coloured, palette = colours[inputs], np.unique(colours)
    for start in range(0, len(palette), batch):
        some = palette[start : start + batch]
        which = np.zeros((batch, len(colours)), bool)
        which[: len(some)] = colours[None] == some[:, None]
        early = _impulses(region, axes, zero, which, 0)
        late = _impulses(region, axes, zero, which, length - 1)
        for sample, colour in enumerate(some):
            o, j = np.nonzero(coloured == colour)
            causal[o, j] = early[sample].T[o]
            future[o, j] = late[sample].T[o, ::-1][:, 1:]
    scale = max(float(np.abs(causal).max(initial=0.0)), float(np.abs(future).max(initial=0.0)), 1e-300)
    if not np.isfinite(scale):
        return None
    causal[np.abs(causal) <= 1e-13 * scale] = 0.0
    echo = float(np.linalg.norm(future)) / max(float(np.linalg.norm(causal)), 1e-300)
    tables = region.fourier if region.fourier >= region.stored else 0.0  # coarser formats have echoes of their own
    if (echo <= max(ECHO, tables) or _is_noise(future, causal)) and not np.any(resting):
        return Kernels(axes, inputs, causal, None, resting[0, 0], echo)
    return Kernels(axes, inputs, causal, future, resting[0, 0], 0.0)


def _is_noise(future: Array, causal: Array) -> bool:
    """Is what comes from the future, of each output, no more than float32 leaves anywhere, and nowhere more than
    elsewhere?

    A spectrum that was summed in float32 has that much, in as many taps as there are steps.
    """
    if future.shape[2] < SHORTEST:
        return False
    past, ahead = np.abs(causal).max(axis=(1, 2)), np.abs(future)
    mean = np.sqrt(np.mean(future**2, axis=(1, 2)))
    return bool((ahead.max(axis=(1, 2)) <= np.minimum(NOISE * past, FLAT * mean)).all())


def _residual(kernels: Kernels, region: Region, arrays: Sequence[Array], answer: Array) -> float:
    """How far convolution with the kernels is from the region's answer."""
    u = np.concatenate([to_steps(x, f.axes) for x, f in zip(arrays, region.flows, strict=True)], axis=2)
    wanted = to_steps(answer, kernels.axes)
    return float(np.abs(convolved(kernels, u) - wanted).max(initial=0.0))


def convolved(kernels: Kernels, u: Array) -> Array:
    """The kernels applied to u (batch, time, inputs), without the offset."""
    from scipy.fft import irfft, next_fast_len, rfft

    length = u.shape[1]
    taps = kernels.causal
    before = 0
    if kernels.future is not None:
        before = kernels.future.shape[2]
        taps = np.concatenate([kernels.future[:, :, ::-1], taps], axis=2)
    size = next_fast_len(length + taps.shape[2], real=True)
    spectra = rfft(u.swapaxes(1, 2), size)  # b i w
    product = np.zeros((u.shape[0], len(taps), spectra.shape[2]), np.complex128)
    for j in range(taps.shape[1]):
        kernel = rfft(taps[:, j], size)
        for total, spectrum in zip(product, spectra, strict=True):
            total += spectrum[kernels.inputs[:, j]] * kernel
    return np.asarray(irfft(product, size)[:, :, before : before + length].swapaxes(1, 2))
