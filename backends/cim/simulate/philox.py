"""Philox4x64-10 (Salmon et al., SC 2011), compiled: 256 bits of each value of a counter, the words of numpy's generator
of that name. Its state is set by a counter here: numpy's takes as long to be set as a thousand words take."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmc.ir.op import Array
from ssmc.jit import compiled, high_product, inlined

_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)  # multipliers
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)  # added to the key after each round
_ONE = np.uint64(1)


@inlined
def _block(a: Any, b: Any, c: Any, d: Any, k: Any, m: Any) -> Any:
    """Four words of the counter (a, b, c, d), by the key (k, m)."""
    for _ in range(10):
        a, b, c, d = high_product(_M1, c) ^ b ^ k, _M1 * c, high_product(_M0, a) ^ d ^ m, _M0 * a
        k, m = k + _W0, m + _W1
    return a, b, c, d


@compiled
def draw(table: Array, key: Any, first: Any, stream: Any, share: int, room: Array, out: Array) -> None:
    """`out` (samples, steps, words) takes entries of `table` (2^16,): each word of the generator is four places in it,
    the lowest bits first. `share` samples have a stream together, `stream` and the next ones; a step takes `room`
    (draws, 4) words of it, whose counter is behind `first` at the first one. What no sample needs is left out."""
    nothing, places = np.uint64(0), room.reshape(-1).view(np.uint16)
    for start in range(0, out.shape[0], share):
        counter = first
        for k in range(out.shape[1]):
            for n in range(room.shape[0]):
                counter += _ONE
                a, b, c, d = _block(counter, stream, nothing, nothing, key, nothing)
                room[n, 0] = a
                room[n, 1] = b
                room[n, 2] = c
                room[n, 3] = d
            for s in range(min(share, out.shape[0] - start)):
                row, where = out[start + s, k], places[s * out.shape[2] : (s + 1) * out.shape[2]]
                for j in range(row.size):
                    row[j] = table[where[j]]
        stream += _ONE
