"""One step of states: x <- a x + v on real arrays, in float64 and in fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.formats import saturate

Array = NDArray[Any]
Parts = tuple[Array, ...]  # the real part, and the imaginary one where there is one


@dataclass(frozen=True)
class Decay:
    """a (float64), or the integers of 1 - a with their `unit` (fixed point)."""

    parts: Parts
    unit: Array | None = None

    def at(self, step: int) -> Decay:
        """The decay of one step, where it changes; a decay with one step serves all."""
        k = step if len(self.parts[0]) > 1 else 0
        return Decay(tuple(part[k] for part in self.parts), None if self.unit is None else self.unit[k])


def order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


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


def run_fixed(decay: Decay, x: Parts, v: Parts, bits: int) -> tuple[Parts, int]:
    """x - round((1 - a) x) + v in integers, limited to `bits` bits; also how many were outside.

    The product of mantissa and state is exact, its sum over the halves too; it is rounded once.
    """
    d, unit = decay.parts, decay.unit
    assert unit is not None
    if len(x) == 1:
        following = [x[0] - np.rint(d[0] * x[0] * unit) + v[0]]
    else:
        following = [
            x[0] - np.rint((d[0] * x[0] - d[1] * x[1]) * unit) + v[0],
            x[1] - np.rint((d[0] * x[1] + d[1] * x[0]) * unit) + v[1],
        ]
    limited = [saturate(part, bits) for part in following]
    return tuple(part for part, _ in limited), sum(outside for _, outside in limited)
