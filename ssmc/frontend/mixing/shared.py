"""Kernels that share inputs, or add up in one output, as one system: their poles are the same, or stand together.

The memory of a Legendre memory unit, as a convolution, is one input and as many outputs as it has states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ssmc.frontend.mixing import many_inputs
from ssmc.frontend.mixing.fitting import Fit
from ssmc.frontend.mixing.tails import behind, over
from ssmc.ir.op import Array
from ssmc.statespace import StateSpace, identify_together, kernel
from ssmc.statespace.hankel import sample

MOST = 1 << 17  # taps of kernels that are looked at together (ours)
SMALL = 1 << 13  # taps of kernels that what was found for is kept (ours)
WORTH = 2  # ours: parameters of the filters for one of the system, where several inputs meet


@dataclass(frozen=True, eq=False)
class Together:
    """Outputs that became one system, of the features `inputs`."""

    outputs: Array  # (O,)
    inputs: Array  # (I,)
    fit: Fit


def together(taps: Array, inputs: Array, tolerance: float, dynamic: bool) -> Iterator[Together]:
    """Systems for kernels (outputs, width, L) of the features `inputs` (outputs, width), where some share these."""
    for outputs, features in _components(taps, inputs):
        if len(outputs) * len(features) < 2 or len(outputs) * len(features) * taps.shape[2] > MOST:
            continue
        whole = np.zeros((len(outputs), len(features), taps.shape[2]))
        for row, o in enumerate(outputs):
            np.add.at(whole[row], np.searchsorted(features, inputs[o][used := _used(taps[o])]), taps[o][used])
        system = _kept(whole, tolerance) if whole.size <= SMALL else _identified(whole, tolerance)
        if system is None:
            continue
        fit = _measured(system, whole, dynamic)
        if fit.error <= tolerance:
            yield Together(outputs, features, fit)


def _kept(taps: Array, tolerance: float) -> StateSpace | None:
    """`_identified`, kept for the many ways to cut a region that leave the same kernels."""
    return _again(taps.tobytes(), taps.shape, tolerance)


@lru_cache(maxsize=256)
def _again(taps: bytes, shape: tuple[int, ...], tolerance: float) -> StateSpace | None:
    return _identified(np.frombuffer(taps).reshape(shape), tolerance)


def _identified(taps: Array, tolerance: float) -> StateSpace | None:
    """A system for kernels (O, I, L), if it is worth it."""
    most = _most(taps, tolerance)
    system = identify_together(taps, tolerance, most)
    if (system is None or real_states(system) > most) and taps.shape[1] > 1:
        fit = many_inputs.together(taps, tolerance)
        system = None if fit is None else fit.system
    return None if system is None or real_states(system) > most else system


def _used(taps: Array) -> Array:
    return np.flatnonzero(np.any(taps, axis=1))


def _components(taps: Array, inputs: Array) -> list[tuple[Array, Array]]:
    """Outputs and features that kernels connect, each by themselves."""
    count, (o, j) = len(taps), np.nonzero(np.any(taps, axis=2))
    size = count + int(inputs.max()) + 1
    links = sparse.coo_array((np.ones(len(o)), (o, count + inputs[o, j])), shape=(size, size))
    label = connected_components(links, directed=False)[1]
    used = np.unique(np.concatenate([o, count + inputs[o, j]]))
    groups = [used[label[used] == each] for each in np.unique(label[used])]
    return [(group[group < count], group[group >= count] - count) for group in groups]


def _most(taps: Array, tolerance: float) -> int:
    """How many real states a system of kernels (O, I, L) may have: fewer than one of each output would need by itself,
    or, of several inputs, so many that its parameters are a share of the filters' that it is taken for."""
    high, wide, length = taps.shape
    if wide == 1:
        scaled = taps[:, 0, 1:] / np.abs(taps[:, 0]).max(axis=1, keepdims=True)
        return sum(int(sample(h, tolerance, length).least_order(tolerance)) for h in scaled) - 1
    last = int(np.flatnonzero(np.any(taps, axis=(0, 1)))[-1]) + 1
    most: int = high * wide * last // (WORTH * (high + wide + 1))
    return most


def real_states(system: StateSpace) -> int:
    """How many real states a system of one group has."""
    return int(np.where(np.imag(system.A[0]) != 0, 2, 1).sum()) if system.diagonal else system.states


def _measured(system: StateSpace, taps: Array, dynamic: bool) -> Fit:
    """A system of one group held against the taps (O, I, L), and against nothing behind them where they are over."""
    missed = np.abs(kernel(system, taps.shape[2])[0] - taps)
    size = np.abs(taps).max(axis=(1, 2))
    error, l1 = missed.max(axis=(1, 2)) / size, missed.sum(axis=(1, 2))
    if dynamic and over(taps).all():
        for row in range(len(taps)):
            peak, total = behind(replace(system, C=system.C[:, [row]], D=system.D[:, [row]]), taps.shape[2])
            error[row], l1[row] = max(error[row], peak[0] / size[row]), l1[row] + total[0]
    output = np.linalg.norm(missed, axis=(1, 2)) / np.linalg.norm(taps, axis=(1, 2))
    return Fit(system, float(error.max()), float(output.max()), float(l1.max()))
