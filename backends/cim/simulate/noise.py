"""Counter-based normal numbers: a function of (seed, place, sample, step), whatever is drawn beside them.

Philox4x64 (Salmon et al., SC 2011) gives 64 bits a word; each word is four positions in a table of 2^16 normal
quantiles. The table's variance is one; its tails end at 4.3 standard deviations. Each group of samples has a stream of
its own, step after step, and the counter finds any step in it: nothing is drawn for steps that do not run.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from ssmc.ir.op import Array

SAMPLES = 8  # that share a stream
_DRAW = 16  # normals of one value of the counter: four words of four


@cache
def _quantiles() -> Array:
    from scipy.special import ndtri

    table = np.asarray(ndtri((np.arange(2**16) + 0.5) / 2**16))
    return np.asarray(table / np.sqrt(np.mean(table**2)), np.float32)


def key_of(*parts: int | str) -> int:
    """A 64-bit key of a place on the chip (and the seed)."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _device_words(key: int, count: int) -> Array:
    """(count,) positions in the table."""
    drawn = np.random.Philox(key=key, counter=0).random_raw(-(-count // _DRAW) * _DRAW // 4)
    return np.asarray(drawn, "<u8").view("<u2")[:count]


def device_normals(key: int, count: int) -> Array:
    """(count,) standard normals, of devices: the same whatever is run on them."""
    return _quantiles()[_device_words(key, count)].astype(np.float64)


def device_uniforms(key: int, count: int) -> Array:
    """(count,) numbers in 0..1 in steps of 2^-32, of devices: the same whatever is run on them."""
    pairs = _device_words(key, 2 * count).reshape(-1, 2).astype(np.float64)
    return np.asarray((pairs[:, 0] + (pairs[:, 1] + 0.5) / 2**16) / 2**16)


def normals(
    key: int, batch: int, first: int, steps: int, words: int, sample: int = 0, out: Array | None = None
) -> Array:
    """(batch, steps, words) standard normals, float32, of steps from `first` and samples from `sample` on, in `out`
    where that is given.

    Those of a sample at a step depend on `key`, the sample, the step and `words` alone. `sample` is a multiple of 8.
    """
    from backends.cim.simulate.philox import draw

    assert sample % SAMPLES == 0
    if out is None:
        out = np.empty((batch, steps, words), np.float32)
    draws = -(-SAMPLES * words // _DRAW)  # of a step
    room, place, stream = np.empty((draws, 4), np.uint64), np.uint64(first * draws), np.uint64(sample // SAMPLES)
    draw(_quantiles(), np.uint64(key), place, stream, SAMPLES, room, out)
    return out
