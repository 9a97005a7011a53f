"""How a pass goes through the array, and how soon others may follow it: when nothing of them comes anywhere before one
more step of it would have (`stepped.traffic` sends such steps through the registers, one by one)."""

from __future__ import annotations

from dataclasses import dataclass


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

    Its operands reach the top left element after `gather`, `pace` later each of the `rows`; in the diagonal (`skewed`)
    the columns are as much later as they are further east, in gangs of `gang` together. Its sums come `trail` later,
    and its words begin to leave through the ports at `out`. The last step's words have left the ports `over` cycles
    after the next pass might begin, or before that where it is negative. Of what is `drained` nothing is left by then.
    """

    gather: int
    rows: int
    cols: int
    pace: int
    gang: int
    skewed: bool
    trail: int
    out: int
    over: int
    drained: bool = False

    def _reached(self, row: int, col: int) -> int:
        return self.gather + row * self.pace + (col - col % self.gang) * self.skewed

    def behind(self, before: Wave) -> int:
        """Cycles that this wave must wait so as to be nowhere earlier than one more step of the one before.

        Neither its operands nor its sums may overtake, and the ports must have sent the words of the one before. Both
        move evenly, in gangs two columns at once: what is closest is so in the first or last two columns.
        """
        if before.drained:
            return 0
        columns = {0, min(1, self.cols - 1), max(0, self.cols - 2), self.cols - 1}
        late = max(before._reached(r, c) - self._reached(r, c) for r in (0, self.rows - 1) for c in columns)
        return max(0, late, late + before.trail - self.trail, before.over - self.out)

    def leads(self, shift: Shift) -> int:
        """Cycles that a shift must wait so as to come nowhere before the first step has taken over what is there.

        Both move evenly down the columns: a cell of ganged elements is reached in one shift, row by row by the step.
        """
        inside = (shift.height - 1) * self.pace
        return self.gather + inside + max(0, (shift.rows - 1) * (shift.height * self.pace - shift.interval))
