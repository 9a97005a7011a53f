"""The memories as they are in a cycle, and who uses which port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Memory:
    """Scratchpad words (NaN where nothing was written), parameters by address, streams of every sample."""

    spad: Array
    streams: dict[int, Array]
    ports: Mapping[str, int]
    params: dict[int, Array] = field(default_factory=dict)
    _used: Counter[tuple[str, int]] = field(default_factory=Counter)
    _writes: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

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
