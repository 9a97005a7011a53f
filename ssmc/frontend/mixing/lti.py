"""Probing a region that mixes time: is it linear, the same at every step, and what is its kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ssmc.frontend.graph.flow import Unsupported
from ssmc.frontend.mixing.by_number import ByNumber, by_number
from ssmc.frontend.mixing.regions import Region
from ssmc.frontend.mixing.target_axes import axes_with, batch_of, batch_places, moved_alone, sample, with_another_start
from ssmc.frontend.reasons import Kind, Reason
from ssmc.ir.op import Array

TOLERANCE = 1e-9
NONLINEAR = Reason("is not linear in the streams that enter it", Kind.NONLINEAR)
UNLIKE = Reason("does not treat all time steps alike", Kind.UNLIKE)
ONE_MORE = (
    ": one step more than goes in, as where the state before the first step stands in front of the results; export the "
    "results without it (y[:, 1:])"
)
ECHO = 2e-7  # energy from the future, relative to the past: what a spectrum stored in float32 leaves behind
NOISE = 1e-6  # a tap of it, of the largest from the past
FLAT = 6.0  # a tap of it, of their mean (ours: normal noise has one of 5 in a million)
SHORTEST = 12  # taps that tell noise from a decay (ours)
ROUNDED = 3e-7  # relative: powers of a decay that were folded into float32 tables, others at each step of a tree
UNITS = 8  # roundings of coarser tables that powers in a tree of them are off by (ours)
FEW = 4  # colours of inputs that are probed without asking first whether there is anything to find (ours)
MOVED = 0.05  # of the largest number: a region that is off by more where its input comes later is no system (ours)
MAX_INPUTS = 1024  # features of all entries together, for a region in which they may all meet
MAX_TAPS = 1 << 27  # and taps of what each makes of each


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


def probe(region: Region) -> Kernels:
    """The kernels of a region. Raises Unsupported where it is not linear, or not the same at every step.

    Runs are what takes the time of long sequences: of noise, of which one sample is the sum of two others; of the same
    with another first sample, which tells that samples do not meet; and of ones at the first and at the last step.
    """
    lengths = {f.shape[f.axes.index("t")] for f in region.flows if "t" in f.axes}
    if len(lengths) == 1 and not lengths & set(region.shape):
        shape = " x ".join(map(str, region.shape))
        spectrum = any(call.kind == "DFT" for call in region.calls)  # of twice the steps, of which half is stored
        more = ONE_MORE if min(lengths) + 1 in region.shape and not spectrum else ""
        why = f"{UNLIKE}: of {min(lengths)} steps it makes {shape} numbers, with no axis of so many{more}"
        raise Unsupported(UNLIKE.within(why))
    if len(lengths) != 1 or 0 in region.shape:
        raise Unsupported(UNLIKE)
    rng = np.random.default_rng(5)
    a = [rng.standard_normal(f.shape) for f in region.flows]
    batch, places = batch_of(region), batch_places(region)
    apart = batch is not None and batch > 1 and len(places) > 0
    summed = apart and batch == 3
    if summed:
        for x, f in zip(a, region.flows, strict=True):
            x[sample(f, 2)] = x[sample(f, 0)] + x[sample(f, 1)]
    b = with_another_start(region, a, rng) if apart else [rng.standard_normal(f.shape) for f in region.flows]
    ya, zero = region.run(a), np.broadcast_to(0.0, region.shape)
    adds_up = summed and any(_adds_up(ya, at) for at in places if at is not None)
    if not adds_up and np.any(zero := region.run([np.zeros(f.shape) for f in region.flows])):
        ya = ya - zero
    yb = _answer(region, b, zero)
    scale = max(float(np.abs(ya).max(initial=0.0)), float(np.abs(yb).max(initial=0.0)), 1e-300)
    if not adds_up:
        both = _answer(region, [x + y for x, y in zip(a, b, strict=True)], zero)
        if not np.isfinite(both).all() or np.abs(both - ya - yb).max(initial=0.0) > TOLERANCE * scale:
            raise Unsupported(NONLINEAR)
    places = moved_alone(places, ya, yb) if apart else places
    # What is the sum of other samples, or has been in another run, tells nothing more.
    runs = ((a, ya, slice(0, 2 if summed else None)), (b, yb, slice(0, 1 if apart else None)))
    nearest: Kernels | None = None
    for axes in axes_with(region, places):
        moving: bool | None = None  # not asked yet: few colours are probed as soon
        for inputs, colours in dependences(region, axes):
            if moving is None and len(np.unique(colours)) > FEW:
                moving = _moves_along(region, axes, a, zero, scale)
            found = None if moving is False else impulse_kernels(region, axes, inputs, colours, zero)
            if found is None:
                continue
            error = max(_residual(found, region, *run) for run in runs) / scale
            if error <= max(TOLERANCE, 5 * found.error, 5 * region.rounding):
                return _apart(found)
            if error <= (max(ROUNDED, UNITS * region.stored) if nearest is None else nearest.error / 2):
                nearest = replace(found, error=error)
    if nearest is not None:
        return _apart(nearest)
    some = next(axes_with(region, places), None)
    if some is None:
        raise Unsupported(Reason(str(UNLIKE), UNLIKE.kind | Kind.LINEAR))
    raise ByNumber(lambda: by_number(region, some))


def _moves_along(region: Region, axes: str, arrays: Sequence[Array], zero: Array, scale: float) -> bool:
    """Does what the region gives for the arrays, but their last step, come a step later where they do?

    What treats all steps alike does so, whether it looks ahead or back.
    """
    early: list[Array] = []
    late: list[Array] = []
    for x, flow in zip(arrays, region.flows, strict=True):
        steps = np.moveaxis(x, flow.axes.index("t"), 0)
        for kept, pad in ((early, (0, 1)), (late, (1, 0))):
            moved = np.pad(steps[:-1], [pad, *[(0, 0)] * (x.ndim - 1)])
            kept.append(np.moveaxis(moved, 0, flow.axes.index("t")))
    first, then = (np.moveaxis(_answer(region, x, zero), axes.index("t"), 0) for x in (early, late))
    return bool(np.abs(then[1:] - first[:-1]).max(initial=0.0) <= MOVED * scale)


def _apart(kernels: Kernels) -> Kernels:
    """The kernels of one input each, where no output depends on more, as where channels come in another order."""
    used = np.any(kernels.causal, axis=2)
    if kernels.future is not None:
        used = used | np.any(kernels.future, axis=2)
    if used.shape[1] < 2 or used.sum(axis=1).max() > 1:
        return kernels
    one = used.argmax(axis=1)[:, None]

    def chosen(taps: Array) -> Array:
        return np.take_along_axis(taps, one[..., None], axis=1)

    future = None if kernels.future is None else chosen(kernels.future)
    inputs = np.take_along_axis(kernels.inputs, one, axis=1)
    return replace(kernels, inputs=inputs, causal=chosen(kernels.causal), future=future)


def _answer(region: Region, arrays: Sequence[Array], zero: Array) -> Array:
    """What the region makes of the arrays, less what it makes of zeros."""
    found = region.run(arrays)
    return found - zero if np.any(zero) else found


def _adds_up(y: Array, at: int) -> bool:
    """Is the third sample the sum of the first two?"""
    first, second, third = np.moveaxis(y, at, 0)
    scale = float(np.abs(third).max(initial=0.0))
    return bool(np.isfinite(scale) and np.abs(first + second - third).max(initial=0.0) <= TOLERANCE * scale)


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
    if starts[-1] <= MAX_INPUTS and n * starts[-1] * region.shape[axes.index("t")] <= MAX_TAPS:
        yield np.tile(np.arange(starts[-1]), (n, 1)), np.arange(starts[-1])


def _aligned(shape: tuple[int, ...], outputs: tuple[int, ...]) -> NDArray[np.int64] | None:
    """For each output the entry's feature that stands at its place, axes matched from the right or from the left; with
    axes of one feature, as that of the parts of a signal to be transformed, or without them."""
    index, bare = np.arange(prod(shape)).reshape(shape), tuple(d for d in shape if d != 1)
    for candidate in (
        shape,
        shape + (1,) * (len(outputs) - len(shape)),
        bare,
        bare + (1,) * (len(outputs) - len(bare)),
    ):
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


def _impulses(region: Region, axes: str, zero: Array, which: Array, at: Sequence[int]) -> Array:
    """Answers (batch, time, outputs) to ones in the features `which` (batch, inputs; bool), each sample at its step."""
    arrays, start = [], 0
    for flow in region.flows:
        size = prod(flow.features)
        length = flow.shape[flow.axes.index("t")]
        steps = np.zeros((len(which), length, size))
        steps[range(len(which)), at] = which[:, start : start + size]
        arrays.append(from_steps(steps, flow.axes, flow.shape))
        start += size
    return to_steps(_answer(region, arrays, zero), axes)


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
    tried = [(colour, at) for at in (0, length - 1) for colour in palette]
    for start in range(0, len(tried), batch):
        some = tried[start : start + batch]
        which = np.zeros((batch, len(colours)), bool)
        which[: len(some)] = [colours == colour for colour, _ in some]
        answers = _impulses(region, axes, zero, which, [at for _, at in some] + [0] * (batch - len(some)))
        for (colour, at), answer in zip(some, answers, strict=False):
            o, j = np.nonzero(coloured == colour)
            if at == 0:
                causal[o, j] = answer.T[o]
            else:
                future[o, j] = answer.T[o, ::-1][:, 1:]
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


def _residual(kernels: Kernels, region: Region, arrays: Sequence[Array], answer: Array, samples: slice) -> float:
    """How far convolution with the kernels is from the region's answer, in some of the samples."""
    u = np.concatenate([to_steps(x, f.axes)[samples] for x, f in zip(arrays, region.flows, strict=True)], axis=2)
    wanted = to_steps(answer, kernels.axes)[samples]
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
    product = spectra[:, kernels.inputs[:, 0]]
    product *= rfft(taps[:, 0], size)
    for j in range(1, taps.shape[1]):
        kernel = rfft(taps[:, j], size)
        for total, spectrum in zip(product, spectra, strict=True):
            total += spectrum[kernels.inputs[:, j]] * kernel
    return np.asarray(irfft(product, size)[:, :, before : before + length].swapaxes(1, 2))
