"""Which words of a row have been written: spans in order, apart from each other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field


@dataclass
class Extents:
    """A set of words; adding and asking take the logarithm of the number of gaps."""

    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)

    def add(self, start: int, stop: int) -> None:
        """Add the words `start` to `stop` - 1."""
        first, last = bisect_left(self.stops, start), bisect_right(self.starts, stop)
        if first < last:  # it touches these
            start, stop = min(start, self.starts[first]), max(stop, self.stops[last - 1])
        self.starts[first:last], self.stops[first:last] = [start], [stop]

    def covers(self, start: int, stop: int) -> bool:
        """Are the words `start` to `stop` - 1 all in it?"""
        place = bisect_right(self.starts, start) - 1
        return start >= stop or (place >= 0 and stop <= self.stops[place])
