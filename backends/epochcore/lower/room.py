"""Room on a line of words: taken where the lowest gap is that is wide enough, given back in any order."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

ENDLESS = 1 << 62


@dataclass(eq=False)
class Room:
    """Gaps in the order of their places, none beside another; the last one has no end.

    Taking and giving back cost some microseconds, also where there are thousands of gaps.
    """

    starts: array[int] = field(default_factory=lambda: array("q", [0]))
    sizes: array[int] = field(default_factory=lambda: array("q", [ENDLESS]))

    def take(self, size: int) -> int:
        """The lowest place with room for `size` words, which is taken; nothing takes no room."""
        index = int(np.argmax(np.frombuffer(self.sizes, np.int64) >= size))
        place = self.starts[index]
        self.starts[index] += size
        self.sizes[index] -= size
        if not self.sizes[index]:
            del self.starts[index], self.sizes[index]
        return place

    def free(self, place: int, size: int) -> None:
        """Give back what was taken."""
        if not size:
            return
        index = bisect_left(self.starts, place)
        self.starts.insert(index, place)
        self.sizes.insert(index, size)
        for left in (index, index - 1):
            if left >= 0 and self.starts[left] + self.sizes[left] == self.starts[left + 1]:
                self.sizes[left] += self.sizes[left + 1]
                del self.starts[left + 1], self.sizes[left + 1]
