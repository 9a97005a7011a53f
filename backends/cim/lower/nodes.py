"""Which state nodes of which cores hold the states of a layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """States start..stop of a layer in nodes first, first + 1, ... of a core; pairs take two nodes a state."""

    core: int
    first: int
    start: int
    stop: int


@dataclass(frozen=True)
class Nodes:
    """Where a layer's states live. With `half`, a state is a pair of words, that far apart (re and im)."""

    bank: str
    home: int
    shares: tuple[Share, ...]
    half: int = 0

    def words(self, share: Share) -> int:
        return (share.stop - share.start) * (2 if self.half else 1)

    def whole(self, share: Share) -> bool:
        """Whether this share is all there is, on the layer's own core."""
        return len(self.shares) == 1 and share.core == self.home
