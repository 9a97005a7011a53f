"""What lies in the parameter memory: constants that are fetched again, and still there, do not move."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass
class Lying:
    """Constants that lie whole in the parameter memory, in order, by rows: where they begin, where they end, and their
    numbers. Where these are the same, so is the value."""

    known: Ints = field(default_factory=lambda: np.zeros((3, 0), np.int64))
    _all: dict[bytes, Ints] = field(default_factory=dict)

    def move(self, fetched: Ints) -> NDArray[np.bool_]:
        """Whether constants that are fetched one after the other must come there, as they are not there or something
        has overwritten them since."""
        from backends.epochcore.clock.fetched import fetch  # it loads the compiler

        moves, fetched = np.zeros(fetched.shape[1], np.bool_), np.ascontiguousarray(fetched)
        lain = np.concatenate([self.known, np.zeros_like(fetched)], 1)
        count = fetch(fetched, lain, self.known.shape[1], moves)
        if moves.any():
            known = np.ascontiguousarray(lain[:, :count])
            self.known = self._all.setdefault(known.tobytes(), known)
        return moves
