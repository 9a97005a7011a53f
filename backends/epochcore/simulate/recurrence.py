"""One step of states: x <- a x + v on real arrays, in float64 and as the realistic machine does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backends.epochcore.arch import Numbers
from backends.epochcore.formats import drives, states
from ssmc.ir.op import Array

Parts = tuple[Array, ...]  # the real part, and the imaginary one where there is one


@dataclass(frozen=True)
class Decay:
    """a (float64), or what the machine keeps of it with its `unit`: 1 - a (`distance`) or a."""

    parts: Parts
    unit: Array | None = None
    distance: bool = False

    def at(self, step: int) -> Decay:
        """The decay of one step, where it changes; a decay with one step serves all."""
        k = step if len(self.parts[0]) > 1 else 0
        unit = None if self.unit is None else self.unit[k if len(self.unit) > 1 else 0]
        return Decay(tuple(part[k] for part in self.parts), unit, self.distance)


def order(steps: int, reverse: bool) -> range:
    """The steps in the order in which a recurrence takes them."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def by_row(values: Array) -> Parts:
    """(halves, cols, rows) as a (rows, 1, cols) array for each half."""
    return tuple(np.ascontiguousarray(half.T)[:, None, :] for half in values)


def terms(states: Parts, c: Parts) -> Array:
    """Re(c x), each row's."""
    found = states[0] * c[0]
    if len(c) == 2:
        found -= states[1] * c[1]
    return found


def added(values: Array) -> Array:
    """The sum over the first axis, one after the other."""
    # numpy adds numbers that lie side by side in another order, as a single column's do
    return np.asarray(np.add.accumulate(values, axis=0)[-1] if values[0].size == 1 else np.add.reduce(values, axis=0))


def run_float(decay: Decay, x: Parts, v: Parts) -> Parts:
    """a x + v."""
    a = decay.parts
    if len(x) == 1:
        following = a[0] * x[0]
        following += v[0]
        return (following,)
    real, imag = a[0] * x[0], a[0] * x[1]
    real -= a[1] * x[1]
    imag += a[1] * x[0]
    real += v[0]
    imag += v[1]
    return real, imag


def forgets(decay: Decay) -> bool:
    """Are states in float32 as good as their inputs? Rounding each step changes them by 2^-24 / (1 - |a|) at most, of
    the largest: 2e-6 at this bound."""
    size = np.abs(decay.parts[0]) if len(decay.parts) == 1 else np.hypot(*decay.parts)
    return bool(size.max(initial=0.0) <= 1.0 - 1.0 / 32)


def run_float_into(
    decay: Decay, changes: bool, x: Parts, v: Sequence[Array], y: Sequence[Array], steps: range
) -> Parts:
    """`run_float` over whole blocks (steps, batch, states), every state written to y; the same operations in order.

    States are float64; where y is float32, what is written is rounded, what goes on is not, unless the decay `forgets`.
    """
    if len(x) == 1:
        (now,), (drive,), (result,), (a,) = x, v, y, decay.parts
        rows, wide = list(result), result.dtype == np.float64
        if not wide and not changes and forgets(decay):
            now, a, wide = now.astype(np.float32), a.astype(np.float32), True
        own = now if wide else now.copy()
        for k in steps:
            if changes:
                (a,) = decay.at(k).parts
            own = np.multiply(a, own, out=rows[k] if wide else own)
            own += drive[k]
            if not wide:
                rows[k][...] = own
        return (own,)
    re, im = x
    for k in steps:
        a_re, a_im = (decay.at(k) if changes else decay).parts
        next_re, next_im = a_re * re, a_re * im
        next_re -= a_im * im
        next_im += a_im * re
        next_re += v[0][k]
        next_im += v[1][k]
        y[0][k], y[1][k] = next_re, next_im
        re, im = next_re, next_im
    return re, im


def run_machine(decay: Decay, x: Parts, v: Parts, numbers: Numbers) -> tuple[Parts, int]:
    """x - (1 - a) x + v, or a x + v, in the machine's numbers; also how many states did not fit.

    In fixed point the product of mantissa and state is exact, its sum over the halves too; it is rounded to the states'
    unit once. In floating point the whole sum is rounded once.
    """
    d, unit = decay.parts, decay.unit
    assert unit is not None
    if len(x) == 1:
        products = [d[0] * x[0] * unit]
    else:
        products = [(d[0] * x[0] - d[1] * x[1]) * unit, (d[0] * x[1] + d[1] * x[0]) * unit]
    found = [drives(product, numbers) for product in products]
    if decay.distance:
        found = [own - product for own, product in zip(x, found, strict=True)]
    kept = [states(part + drive, numbers) for part, drive in zip(found, v, strict=True)]
    return tuple(part for part, _ in kept), sum(outside for _, outside in kept)
