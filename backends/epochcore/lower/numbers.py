"""Numbers of a model that are computed once, in however many ways it is lowered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ssmc.ir.op import Array

T = TypeVar("T")
MANY, SOME = 1 << 14, 16  # numbers of an array of which one in so many is hashed: who is alike is compared all the same


@dataclass(eq=False)
class Numbers:
    """What was computed for one graph on one architecture: how long kernels are, by node (see `forms`), and arrays."""

    taps: dict[str, int | None] = field(default_factory=dict)
    _known: dict[tuple[int, Hashable], tuple[object, Any]] = field(default_factory=dict)
    _hashes: dict[int, int | None] = field(default_factory=dict)  # by identity of arrays that are kept

    def of(self, owner: object, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` computes from an `owner`, and what else the `key` tells. Arrays in it must not change."""
        known = self._known.get((id(owner), key))
        if known is None:
            known = self._known[id(owner), key] = owner, make()  # with its owner, whose identity stays taken so
            self._hashes |= dict.fromkeys(map(id, _arrays(known[1])))
        found: T = known[1]
        return found

    def hash(self, array: Array) -> int:
        """A hash of an array's numbers; of many, of some of them."""
        known = self._hashes.get(id(array))
        if known is None:
            known = hash(array.reshape(-1)[:: SOME if array.size > MANY else 1].tobytes())
            if id(array) in self._hashes:
                self._hashes[id(array)] = known
        return known


def _arrays(value: Any) -> Iterator[Array]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _arrays(part)
