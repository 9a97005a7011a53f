"""Counter-based normal numbers: a function of (seed, place, sample, step), whatever is drawn beside them.

Philox4x64 (Salmon et al., SC 2011) gives 64 bits a word; each word is four positions in a table of 2^16 normal
quantiles. The table's variance is one; its tails end at 4.3 standard deviations. Samples and steps are drawn in
tiles, so that few calls serve many.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SAMPLES, STEPS = 8, 16  # of a tile


@cache
def _quantiles() -> Array:
    from scipy.special import ndtri

    table = np.asarray(ndtri((np.arange(2**16) + 0.5) / 2**16))
    return np.asarray(table / np.sqrt(np.mean(table**2)))


def key_of(*parts: int | str) -> int:
    """A 64-bit key of a place on the chip (and the seed)."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _drawn(generator: np.random.Philox, key: int, tile: tuple[int, int], count: int) -> Array:
    """The first `count` normals of a tile's own stream."""
    counter = np.array([0, *tile, 0], np.uint64)
    generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": np.array([key, 0], np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    raw = np.asarray(generator.random_raw(-(-count // 4)), "<u8")
    return np.asarray(_quantiles()[raw.view("<u2")[:count]])


def device_normals(key: int, count: int) -> Array:
    """(count,) standard normals, of devices: the same whatever is run on them."""
    return _drawn(np.random.Philox(0), key, (0, 0), count)


def normals(key: int, batch: int, first: int, steps: int, words: int) -> Array:
    """(batch, steps, words) standard normals of steps first, first + 1, ... for samples 0, 1, ...

    Those of a sample at a step depend on `key`, the sample, the step and `words` alone.
    """
    out = np.empty((batch, steps, words))
    generator = np.random.Philox(0)
    for row in range(-(-batch // SAMPLES)):
        samples = slice(row * SAMPLES, min((row + 1) * SAMPLES, batch))
        for col in range(first // STEPS, -(-(first + steps) // STEPS)):
            tile = _drawn(generator, key, (row, col), SAMPLES * STEPS * words).reshape(SAMPLES, STEPS, words)
            start, stop = max(col * STEPS, first), min((col + 1) * STEPS, first + steps)
            inside = tile[: samples.stop - samples.start, start - col * STEPS : stop - col * STEPS]
            out[samples, start - first : stop - first] = inside
    return out
