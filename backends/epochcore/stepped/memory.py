"""The memories as they are in a cycle, and who uses which port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ssmc.ir.op import Array


@dataclass
class Memory:
    """Scratchpad words (NaN where nothing was written), parameters by address, streams of every sample."""

    spad: Array
    streams: dict[int, Array]
    ports: Mapping[str, int]
    params: dict[int, Array] = field(default_factory=dict)
    fetched: dict[int, tuple[str, int]] = field(default_factory=dict)  # constants that have their words there
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)  # what the vector unit did, by instruction
    _used: Counter[tuple[str, int]] = field(default_factory=Counter)
    _writes: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def claim(self, first: int, name: str, size: int) -> bool:
        """Give a constant its words of the parameter memory; whether it has them already."""
        if self.fetched.get(first) == (name, size):
            return True
        self.fetched = {at: known for at, known in self.fetched.items() if not _meet(first, size, at, known[1])}
        self.fetched[first] = name, size
        return False

    def fetch(self, first: int, values: Array) -> None:
        """A constant comes to the parameter memory; of those that it overwrites in part, these words are lost."""
        for at, known in list(self.params.items()):
            if at != first and _meet(first, values.size, at, known.size):
                self.params[at] = known.copy()
                self.params[at].ravel()[max(0, first - at) : max(0, first + values.size - at)] = np.nan
        self.params[first] = values

    def use(self, port: str, now: int) -> None:
        """A word through a port. Raises AssertionError where the port is too narrow."""
        self._used[port, now] += 1
        assert self._used[port, now] <= self.ports[port], f"port {port} is too narrow in cycle {now}"

    def later(self, cycle: int, address: int, value: float) -> None:
        """A word is written at the end of a cycle."""
        self._writes.setdefault(cycle, []).append((address, value))

    def settle(self, now: int) -> None:
        """The writes of a cycle."""
        for address, value in self._writes.pop(now, ()):
            self.spad[address] = value


def _meet(first: int, size: int, other: int, wide: int) -> bool:
    return first < other + wide and other < first + size
