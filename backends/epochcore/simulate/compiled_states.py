"""The modes `fri` and `tri` in float64, as machine code: a block of columns, some of its rows in registers at a time.

The operations on one state, and the order in which a column adds its rows, are those of `recurrence.run_float` and
`added`, so that blocks, batches and threads do not matter. Some steps' inputs and sums lie side by side, in the
nearest cache, while row after row goes through them; rows are stepped several at a time, of which none has to wait for
another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ssmc.ir.op import Array
from ssmc.machine_code import Code, Function, Lanes, Pointer, address, function, registers

WIDTH = registers().size // 8  # columns side by side: float64 numbers of a vector register
STEPS = 64  # of all rows before the next steps
ROWS = 4  # stepped together: enough to fill the time that a state takes to its next one


@dataclass(frozen=True)
class Columns:
    """Parameters of systems as the machine code takes them."""

    values: Array  # (blocks, rows, 3 halves, WIDTH): a, b, c
    direct: Array  # (blocks * WIDTH,): d
    cols: int
    plain: bool  # b is one for every state, as where the compiler folded it into c: nothing is multiplied by it

    @staticmethod
    def of(a: Array, b: Array, c: Array, d: Array) -> Columns:
        """From (halves, cols, rows) each, and d (cols,)."""
        every = np.concatenate([a, b, c])
        parts, cols, rows = every.shape
        blocks = -(-cols // WIDTH)
        found, direct = np.zeros((blocks * WIDTH, rows, parts)), np.zeros(blocks * WIDTH)
        found[:cols], direct[:cols] = every.transpose(1, 2, 0), d
        values = np.ascontiguousarray(found.reshape(blocks, WIDTH, rows, parts).transpose(0, 2, 3, 1))
        return Columns(values, direct, cols, bool((b[0] == 1).all() and not b[1:].any()))

    @property
    def blocks(self) -> int:
        """Blocks of columns, which are independent of each other."""
        return len(self.values)

    @property
    def padded(self) -> int:
        """Columns, filled up to whole blocks."""
        return len(self.direct)


@dataclass(frozen=True)
class Kind:
    """What is done to a state: `liquid` ones are (a + b u) x + b u; complex ones have two halves, re and im. Read
    `before` the update, or after it; b may be `plain`, one for every state."""

    halves: int
    before: bool
    liquid: bool
    plain: bool

    def following(self, x: list[Lanes], a: list[Lanes], b: list[Lanes], u: Lanes) -> list[Lanes]:
        """The state after the update."""
        v = [u] if self.plain else [half * u for half in b]
        if self.liquid:
            a = [own + drive for own, drive in zip(a, v, strict=False)] + a[len(v) :]
        if self.halves == 1:
            return [a[0] * x[0] + v[0]]
        turned = a[0] * x[1] + a[1] * x[0]
        return [a[0] * x[0] - a[1] * x[1] + v[0], turned if self.plain else turned + v[1]]

    def term(self, x: list[Lanes], c: list[Lanes]) -> Lanes:
        """What a state adds to the sum of its column."""
        return x[0] * c[0] if self.halves == 1 else x[0] * c[0] - x[1] * c[1]


@dataclass(frozen=True)
class _Writer:
    """Writes the code for one sample: parameters p, states x, d, drives u, results y. Step k of u and of y begins at
    k `stride`; `near` holds some steps' sums, and behind them their inputs."""

    code: Code
    kind: Kind
    p: Pointer
    x: Pointer
    d: Pointer
    u: Pointer
    y: Pointer
    near: Pointer
    high: Lanes  # rows
    steps: Lanes
    stride: Lanes

    def block(self, number: Lanes) -> None:
        """A block of columns, some steps after the other."""
        wide = self.high * (self.kind.halves * WIDTH)
        p, x, low = self.p.past(number * (wide * 3)), self.x.past(number * wide), number * WIDTH
        self.code.each(0, self.steps, STEPS, lambda t: self._several(p, x, low, t))

    def _several(self, p: Pointer, x: Pointer, low: Lanes, t: Lanes) -> None:
        """All rows through some steps from `t` on."""
        code, near, some = self.code, self.near, (self.steps - t).at_most(STEPS)

        def fetch(s: Lanes) -> None:
            near.store(s * WIDTH + STEPS * WIDTH, self.u.load((t + s) * self.stride + low, WIDTH))
            near.store(s * WIDTH, code.zeros("f8", WIDTH))

        def finish(s: Lanes) -> None:
            drive, total = near.load(s * WIDTH + STEPS * WIDTH, WIDTH), near.load(s * WIDTH, WIDTH)
            self.y.store((t + s) * self.stride + low, total + drive * self.d.load(low, WIDTH))

        together = self.high // ROWS * ROWS
        code.each(0, some, 1, fetch)
        code.each(0, together, ROWS, lambda r: self._rows(p, x, r, ROWS, some))
        code.each(together, self.high, 1, lambda r: self._rows(p, x, r, 1, some))
        code.each(0, some, 1, finish)

    def _rows(self, p: Pointer, x: Pointer, first: Lanes, count: int, some: Lanes) -> None:
        """`count` rows through some steps; their terms are added in order."""
        kind, near, halves = self.kind, self.near, self.kind.halves

        def half(source: Pointer, row: int, n: int, of: int) -> Lanes:
            return source.load((first + row) * (of * WIDTH) + n * WIDTH, WIDTH)

        held = [[half(p, k, n, 3 * halves) for n in range(3 * halves)] for k in range(count)]
        states = [half(x, k, n, halves) for k in range(count) for n in range(halves)]

        def step(s: Lanes, *states: Lanes) -> list[Lanes]:
            place, after = s * WIDTH, []
            drive, total = near.load(place + STEPS * WIDTH, WIDTH), near.load(place, WIDTH)
            for k, own in enumerate(held):
                a, b, c = (own[n * halves : (n + 1) * halves] for n in range(3))
                now = list(states[k * halves : (k + 1) * halves])
                then = kind.following(now, a, b, drive)
                total = total + kind.term(now if kind.before else then, c)
                after += then
            near.store(place, total)
            return after

        last = self.code.each(0, some, 1, step, *states)
        for n, value in enumerate(last):
            x.store((first + n // halves) * (halves * WIDTH) + n % halves * WIDTH, value)


@cache
def _loops(kind: Kind) -> Function:
    """One sample's blocks of columns; each kind of states is compiled when it is first met."""

    def write(code: Code, *given: Any) -> None:
        arrays, (blocks, *sizes) = given[:6], given[6:]
        code.each(0, blocks, 1, _Writer(code, kind, *arrays, *sizes).block)

    return function(["f8"] * 6, 4, write)


def run_columns(
    columns: Columns, x: Array, u: Array, y: Array, blocks: range, *, reverse: bool, before: bool, liquid: bool
) -> None:
    """x <- a x + b u, or (a + b u) x + b u where `liquid`; y = Re(c x) summed down the columns, before or after the
    update, + d u; of some `blocks` of columns.

    The states `x` (halves, rows, batch, cols), the drive `u` and `y` (steps, batch, padded), contiguous float64, `x`
    and `y` are written.

    Raises ValueError where an array is none of these.
    """
    halves, rows, batch, cols = x.shape
    steps, padded = len(u), columns.padded
    expected = (columns.blocks, rows, 3 * halves, WIDTH), columns.cols, *[(steps, batch, padded)] * 2
    given = columns.values.shape, cols, u.shape, y.shape
    if given != expected or x.dtype != np.float64 or not blocks.stop <= columns.blocks:
        raise ValueError(f"{x.dtype} states {x.shape}, blocks {blocks} go with arrays {expected}, not {given}")
    if not steps or not len(blocks):
        return
    low, high, stride = blocks.start * WIDTH, min(blocks.stop * WIDTH, cols), batch * padded
    own = np.zeros((batch, len(blocks) * WIDTH, rows, halves))
    own[:, : high - low] = x[..., low:high].transpose(2, 3, 1, 0)
    states = np.ascontiguousarray(own.reshape(batch, len(blocks), WIDTH, rows, halves).transpose(0, 1, 3, 4, 2))
    near = np.empty(2 * STEPS * WIDTH)
    parameters = address(columns.values, "f8") + blocks.start * columns.values[0].nbytes
    direct, last = address(columns.direct, "f8") + 8 * low, (steps - 1) * stride if reverse else 0
    drive, result = address(u, "f8"), address(y, "f8", written=True)
    step = _loops(Kind(halves, before, liquid, columns.plain))
    for sample in range(batch):
        place, held = 8 * (last + sample * padded + low), address(states[sample], "f8")
        size = len(blocks), rows, steps, -stride if reverse else stride
        step(parameters, held, direct, drive + place, result + place, address(near, "f8"), *size)
    own = states.transpose(0, 1, 4, 2, 3).reshape(own.shape)[:, : high - low]
    x[..., low:high] = own.transpose(3, 2, 0, 1)
