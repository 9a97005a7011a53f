"""Passes that one instruction makes in turn, each with weights of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.tiles import tiles, with_words
from backends.epochcore.stepped.passes import Chip, Pass
from backends.epochcore.stepped.shifts import Preload, Product


def in_turn(op: Op) -> bool:
    """Whether an op is one: without steps, nothing is."""
    return op.ins.mnemonic == "mac" and tiles(op.held) > 1 and op.steps > 0


@dataclass
class Turns:
    """One pass after the other, a preload between them; the weights of the first one are there.

    The first one may be sent block by block (`parts`): when it has taken its last step others say.
    """

    op: Op
    chip: Chip
    start: int
    backward: bool = False
    parts: bool = False
    begun: int | None = None  # when the last pass began,
    free: int | None = None  # and when the present one has taken its last step
    start_of_last: int = 0  # of those that have begun
    _tile: int = 0
    _passes: list[Pass | Product] = field(default_factory=list)
    _coming: Preload | None = None
    _shifts: list[Preload] = field(default_factory=list)  # those that move

    def __post_init__(self) -> None:
        assert self.op.held is not None
        self._held, self._count = self.op.held, tiles(self.op.held)
        self._begin(self.start)

    @property
    def last(self) -> Pass | Product:
        return self._passes[-1]

    @property
    def done(self) -> int | None:
        return None if self.begun is None else self.last.done

    @property
    def passed(self) -> int | None:
        return None if self.begun is None else self.last.passed

    def _begin(self, now: int) -> None:
        op = replace(self.op, ins=with_words(self.op.ins, self._tile))
        if self._held["mode"] == "mac.os":
            product = Product(op, self.chip, now, tile=self._tile)
            self.free = now + product.busy
            self._passes.append(product)
        else:
            parts = self.parts and not self._tile
            stream = Pass(op, self.chip, now, takes=(True, False), backward=self.backward, parts=parts)
            self.free = None if parts else now + stream.route.busy
            self._passes.append(stream)
        self.start_of_last, self._tile = now, self._tile + 1
        if self._tile == self._count:
            self.begun = now

    def advance(self, now: int, gone: bool) -> None:
        """Before a cycle: shift in the next weights where those before them are `gone`; begin the next pass."""
        if self.begun is not None or now == self.start:
            return
        shift = self._coming
        if shift is None and gone:
            self._coming = Preload(replace(self.op, ins=self._held), self.chip, now, tile=self._tile)
            self._shifts.append(self._coming)
        elif shift is not None and max(shift.done or now + 1, self.free or now + 1) <= now:
            self._coming = None
            self._begin(now)

    def tick(self, now: int) -> None:
        for work in (*self._passes, *self._shifts):
            work.tick(now)
        self._passes = [work for work in self._passes if work is self.last or work.done is None or work.done > now]
        self._shifts = [shift for shift in self._shifts if shift is self._coming or not shift.over(now)]

    def after(self, now: int) -> None:
        for work in self._passes:
            if isinstance(work, Product):
                work.after(now)

    def leave_traffic(self) -> None:
        """What may follow the last pass."""
        assert self.free is not None
        if isinstance(self.last, Pass):
            self.chip.traffic.follow(self.op, self.free, self.last.route.interval)
        else:
            self.chip.traffic.empty()

    def over(self, now: int) -> bool:
        """Whether nothing shifts any more."""
        return all(shift.over(now) for shift in self._shifts)
