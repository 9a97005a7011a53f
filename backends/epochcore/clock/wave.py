"""How a pass goes through the array, and how soon others may follow it."""

from __future__ import annotations

from dataclasses import dataclass
from operator import sub


@dataclass(frozen=True)
class Shift:
    """Parameters or states that are shifted down the columns: rows of cells, elements from one cell to the next, and
    cycles from one row to the next."""

    rows: int
    height: int
    interval: int


ONE_ROW = Shift(1, 1, 1)


@dataclass(frozen=True)
class Wave:
    """When things of a first step happen, in cycles after the start.

    Its operands reach the `corners` of the array (top left, top right, bottom left, bottom right), `pace` cycles a row,
    its sums are there `trail` later, and its words begin to leave through the ports at `out`. The last step's words
    have left the ports `over` cycles after the next pass might begin, or before that where it is negative.
    """

    corners: tuple[int, int, int, int]
    pace: int
    trail: int
    out: int
    over: int

    @staticmethod
    def of(gather: int, rows: int, pace: int, skew: int, trail: int, *, out: int, over: int) -> Wave:
        """`rows` of the array, `skew` cycles from its first column to the last."""
        down = (rows - 1) * pace
        return Wave((gather, gather + skew, gather + down, gather + down + skew), pace, trail, out, over)

    def behind(self, before: Wave) -> int:
        """Cycles that this wave must wait so as to be nowhere earlier than the one before.

        Neither its operands nor its sums may overtake, and the ports must have sent the words of the one before: where
        ganged states leave a row of elements unused, words leave the array earlier than its corners tell.
        """
        late: int = max(0, *map(sub, before.corners, self.corners))
        return max(late + max(0, before.trail - self.trail), before.over - self.out)

    def leads(self, shift: Shift) -> int:
        """Cycles that a shift must wait so as to come nowhere before the first step has taken over what is there.

        Both move evenly down the columns: a cell of ganged elements is reached in one shift, row by row by the step.
        """
        return self.corners[0] + max(0, (shift.rows - 1) * (shift.height * self.pace - shift.interval))
