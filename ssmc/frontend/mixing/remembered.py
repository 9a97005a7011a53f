"""Runs of a region that were made before: the same is asked from several sides, as what a region is gets told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssmc.ir.op import Array

ASKED = 1 << 22  # bytes of operands that are compared with earlier ones (ours)
KEPT = 1 << 24  # and of answers that are kept (ours)


@dataclass(eq=False)
class Remembered:
    """A function of arrays that is the same whenever it is asked for; answers are only to be read.

    Small operands that lead to large answers, as those of the states between chunks, are worth being remembered.
    """

    run: Callable[[Sequence[Array]], Array]
    _answers: dict[bytes, Array] = field(default_factory=dict)
    _size: int = 0

    def __call__(self, arrays: Sequence[Array]) -> Array:
        if sum(a.nbytes for a in arrays) > ASKED:
            return self.run(arrays)
        key = _digest(arrays)
        if key in self._answers:
            return self._answers[key]
        answer = self.run(arrays)
        if self._size + answer.nbytes > KEPT:
            return answer
        kept = answer.copy() if any(np.may_share_memory(answer, a) for a in arrays) else answer.view()
        kept.setflags(write=False)
        self._answers[key], self._size = kept, self._size + kept.nbytes
        return kept

    def forget(self) -> None:
        """Keep nothing any more, as what is said of a refused region later holds on to how it is run."""
        self._answers.clear()
        self._size = 0


def _digest(arrays: Sequence[Array]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()
