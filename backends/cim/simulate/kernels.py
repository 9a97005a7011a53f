"""Compiled loops over words: what numpy would pass over several times is one pass here.

Every step rounds as numpy's does, in the same order: the results are numpy's to the bit. Rows are apart from each
other, so that a row's result does not depend on the panel that it is in.

The largest of some magnitudes is found in their bits, as whole numbers, which order as they do: comparisons of floating
point numbers, which may be NaN, would run one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmc.ir.op import Array
from ssmc.jit import compiled, inlined


def bits_of(x: Array) -> Array:
    """The numbers' bits as whole numbers, a view."""
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def magnitude_bits(x: Array) -> Any:
    """All bits but the sign's."""
    return np.int64(np.iinfo(np.int32 if x.dtype == np.float32 else np.int64).max)


@inlined
def _within(word: Any, largest: Any) -> Any:
    """A converter's word, and 1 where its range cuts it off."""
    if word > largest:
        return largest, 1
    if word < -largest:
        return -largest, 1
    return word, 0


@compiled
def to_words(x: Array, bits: Array, mask: int, given: Any, largest: Any, reach: Array, reach_bits: Array) -> int:
    """A DAC. `x` (n, rows) becomes words up to `largest` in place (fractions of `reach` where that is zero), `reach`
    (n,) the input that the largest word stands for: `given`, or where that is zero each row's largest. Returns how many
    were clipped."""
    clipped = 0
    for i in range(x.shape[0]):
        reach[i] = given
        if given == 0:
            most = np.int64(0)
            for j in range(x.shape[1]):
                most = max(most, bits[i, j] & mask)
            reach_bits[i] = most
            if most == 0:
                reach[i] = 1
        if largest == 0:
            for j in range(x.shape[1]):
                x[i, j] = x[i, j] / reach[i]
            continue
        for j in range(x.shape[1]):
            x[i, j], cut = _within(np.rint(x[i, j] / reach[i] * largest), largest)
            clipped += cut
    return clipped


@compiled
def disturb(sums: Array, bits: Array, mask: int, variance: Array, drawn: Array, places: Array, unit: float) -> None:
    """Add the noise of a read to `sums` (n, columns): its `variance` at each (or none, where that is empty), and that
    of a whole product's error, (unit times its largest sum)^2 in each of `places` (., 2), first column and the one
    behind the last."""
    lumped = np.empty(1, sums.dtype)
    lumped_bits = lumped.view(bits.dtype)
    for i in range(sums.shape[0]):
        for p in range(places.shape[0]):
            start, stop = places[p]
            row, row_bits, normals = sums[i, start:stop], bits[i, start:stop], drawn[i, start:stop]
            lumped[0] = 0
            if unit > 0:
                most = np.int64(0)
                for j in range(row_bits.size):
                    most = max(most, row_bits[j] & mask)
                lumped_bits[0] = most
                lumped[0] = (np.float64(lumped[0]) * unit) ** 2
            shared = lumped[0]
            if variance.size == 0:
                sigma = np.sqrt(shared)
                for j in range(row.size):
                    row[j] += sigma * normals[j]
            else:
                own = variance[i, start:stop]
                for j in range(row.size):
                    row[j] += np.sqrt(own[j] + shared) * normals[j]


@compiled
def to_codes(sums: Array, to_word: Array, offset: Array | None, largest: Any) -> int:
    """ADCs. `sums` (n, columns) become words in place. Returns how many were clipped."""
    clipped = 0
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            word = sums[i, j] * to_word[j]
            if offset is not None:
                word += offset[j]
            sums[i, j], cut = _within(np.rint(word), largest)
            clipped += cut
    return clipped


@compiled
def deliver(words: Array, gain: Array, reach: Array, target: Array, places: Array) -> None:
    """Add `words` (n, columns) times `gain` (columns,) and `reach` (n,) to `target`; of `places` (., 3), each
    first column, columns, first word of the target."""
    for i in range(words.shape[0]):
        for p in range(places.shape[0]):
            start, cols, at = places[p]
            row, to, factor = words[i, start : start + cols], target[i, at : at + cols], gain[start : start + cols]
            for j in range(cols):
                to[j] += row[j] * factor[j] * reach[i]


@compiled
def spread_exponents(rates: Array, dt: Array, sigma: Any, drawn: Array, out: Array) -> None:
    """Exponents of decays, none above zero: `out` (batch, steps, words) takes rates (words,) times dt (batch or 1,
    steps or 1, 1), each 1 + sigma times `drawn` (batch, steps, words) of what it is."""
    one = np.float32(1)
    for b in range(out.shape[0]):
        for k in range(out.shape[1]):
            passed = dt[b if dt.shape[0] > 1 else 0, k if dt.shape[1] > 1 else 0, 0]
            row, normals = out[b, k], drawn[b, k]
            for n in range(row.size):
                exponent = rates[n] * passed * (one + sigma * normals[n])
                row[n] = 0.0 if exponent > 0.0 else exponent


@compiled
def advance_pairs(
    held: Array, low: Array, a: Array, v: Array, window: float, saturation: float, before: bool, y: Array
) -> tuple[int, float]:
    """States `held` (batch, words) as differences of two devices, the second ones at `low`, through the steps of `v`
    (batch, steps, words); both are left at the last, `y` is what is read. `a` (batch or 1, steps or 1, words) are the
    decays. Returns how often a pair had a device beyond the window, and the largest level then."""
    outside, most = 0, 0.0
    for b in range(v.shape[0]):
        signed, minus = held[b], low[b]
        for k in range(v.shape[1]):
            decay, drive, out = a[b if a.shape[0] > 1 else 0, k if a.shape[1] > 1 else 0], v[b, k], y[b, k]
            beyond = 0
            for n in range(signed.size):
                plus, other = decay[n] * (signed[n] + minus[n]), decay[n] * minus[n]
                up = 0.0 if drive[n] < 0.0 else drive[n]
                down = 0.0 if drive[n] > 0.0 else -drive[n]
                if saturation > 0.0:
                    up *= 1.0 - saturation * plus / window
                    down *= 1.0 - saturation * other / window
                plus += up
                other += down
                if plus > window or other > window:
                    beyond += 1
                    most = max(most, max(plus, other))
                    if saturation > 0.0:
                        plus, other = min(plus, window), min(other, window)
                out[n] = signed[n] if before else plus - other
                signed[n], minus[n] = plus - other, other
            outside += beyond
    return outside, most
