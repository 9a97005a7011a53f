"""Counter-based normal numbers: a function of (seed, place, sample, step), whatever is drawn beside them.

Philox4x64 (Salmon et al., SC 2011) gives 64 bits a word; each word is four positions in a table of 2^16 normal
quantiles. The table's variance is one; its tails end at 4.3 standard deviations.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_PER_COUNTER = 16  # normals of one Philox counter value


@cache
def _quantiles() -> Array:
    from scipy.special import ndtri

    table = np.asarray(ndtri((np.arange(2**16) + 0.5) / 2**16))
    return np.asarray(table / np.sqrt(np.mean(table**2)))


def key_of(*parts: int | str) -> int:
    """A 64-bit key of a place on the chip (and the seed)."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def normals(key: int, sample: int, first: int, steps: int, words: int) -> Array:
    """(steps, words) standard normals of steps first, first + 1, ... for one sample.

    The numbers of a step depend on `key`, `sample`, the step and `words` alone.
    """
    counters = -(-words // _PER_COUNTER)
    generator = np.random.Philox(key=[key, sample], counter=first * counters)
    raw = generator.random_raw(steps * counters * 4)
    drawn = _quantiles()[np.asarray(raw, "<u8").view("<u2")]
    return np.ascontiguousarray(drawn.reshape(steps, counters * _PER_COUNTER)[:, :words])


def batch_normals(key: int, batch: int, first: int, steps: int, words: int) -> Array:
    """(batch, steps, words) standard normals; see `normals`."""
    out = np.empty((batch, steps, words))
    for sample in range(batch):
        out[sample] = normals(key, sample, first, steps, words)
    return out
