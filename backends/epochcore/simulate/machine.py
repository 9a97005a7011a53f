"""The running machine: registers, scratchpad arrays, streams. Samples run side by side, steps a block at a time.

A slot's array is (rows, pitch) with row t * batch + b, so that a step of all samples lies together and a matrix
product sees one long matrix. Where the machine's numbers are floating point, rows are padded to whole panels: BLAS then
always gets panels of the same height, and a row's rounding does not depend on how many rows there are (results are the
same for every block).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from threading import Lock
from typing import Any

import numpy as np

from backends.epochcore.program.rates import lower_rate
from backends.epochcore.program.traps import trap
from backends.epochcore.simulate.buffers import Access, Layout
from ssmc.ir.op import Array

PANEL = 256
SCRATCH = 2
BLOCK = 8
SHARED_WORDS = 1 << 18
# Less is done before another thread has begun, where others want the cores too.
WORK_PER_THREAD = 1 << 19


@dataclass
class Machine:
    """State of a run. `span` is (start, steps) of the present block for each register."""

    layout: Layout
    batch: int
    steps: int
    block: int
    inputs: Mapping[int, Array]  # by stream number, (batch, steps, words) or (batch, words)
    taps: Mapping[int, list[Any]]
    index: int = 0
    backward: bool = False
    span: dict[str, tuple[int, int]] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    memory: list[Array] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    streams: dict[int, Array] = field(default_factory=dict)
    spare: list[Array] = field(default_factory=list)  # memory of streams that nothing reads any more
    states: tuple[Array, ...] = ()
    latest: int = 0  # the copy of a pass's parameters that took its last step (see `stretches`)
    tapped: dict[str, Array] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    pool: Executor | None = None  # threads that take their part where that is worth it
    workers: int = 1
    _scratch: list[Array] = field(default_factory=list)
    _views: dict[tuple[int, int], tuple[Access, Array]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _parts: dict[tuple[int, int], Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.span = {"one": (0, 1), "n0": (0, 0)}
        self.total = {"one": 1, "n0": self.steps, "rT": self.steps, "rB": self.batch}
        most = {"one": 1, "n0": self.block}
        for register, ins in self.layout.rates.items():
            source = str(ins["src"])
            self.total[register] = lower_rate(ins, self.total[source])
            most[register] = most[source] // int(ins["stride"]) + 1
        rows = [self._shared_rows(s) if s.shared else most.get(s.steps, 1) * self.batch for s in self.layout.slots]
        panel = 1 if self.layout.ideal or self.layout.arch.numbers.fixed else PANEL
        shapes = tuple(
            ((-(-n // panel) * panel, s.pitch), s.dtype) for n, s in zip(rows, self.layout.slots, strict=True)
        )
        # columns of states are worked on in blocks
        widest = max((height * (pitch + BLOCK) for (height, pitch), _ in shapes), default=1)
        scratch = (((widest,), np.float64),) * SCRATCH
        self.memory = self.layout.borrow((*shapes, *scratch))
        self.arrays, self._scratch = self.memory[: len(shapes)], self.memory[len(shapes) :]

    def _shared_rows(self, slot: Any) -> int:
        """A constant is kept once a sample where it is small: arithmetic is faster on equal shapes."""
        return self.batch if slot.pitch * self.batch <= SHARED_WORDS else 1

    # -- reading and writing ---------------------------------------------------------------------------------

    def rows(self, access: Access) -> Array:
        """(steps, batch, words); one step for a row, one sample for what is shared."""
        slot = access.slot
        n = self.span[slot.steps][1]
        known = self._views.get((id(access), n))
        if known is not None:
            return known[1]
        array = self.arrays[slot.number]
        if slot.shared:
            view = array[: self._shared_rows(slot)].reshape(1, -1, slot.pitch)
        else:
            view = array[: n * self.batch].reshape(n, self.batch, slot.pitch)
        view = view if access.whole else view[:, :, access.offset : access.offset + access.words]
        self._views[id(access), n] = access, view
        return view

    def panels(self, access: Access, height: int) -> Array:
        """(panels, height, words), the last panel filled up with whatever is there; `height` divides PANEL."""
        slot, array = access.slot, self.arrays[access.slot.number]
        count = -(-self.span[slot.steps][1] * self.batch // height)
        view = array[: count * height].reshape(count, height, slot.pitch)
        return view if access.whole else view[:, :, access.offset : access.offset + access.words]

    def scratch(self, index: int, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """One of `SCRATCH` arrays to work in, valid within one instruction."""
        words: Array = self._scratch[index].view(dtype)
        return words[: prod(shape)].reshape(shape)

    def spread(self, count: int, work: int, body: Callable[[range], None]) -> None:
        """Call `body` with ranges that make up `count` parts of some `work` (about an operation a number), in several
        threads where it is worth them. Parts must not depend on each other."""
        shares = min(self.workers, count, work // WORK_PER_THREAD)
        if self.pool is None or shares < 2:
            body(range(count))
            return
        bounds = [count * n // shares for n in range(shares + 1)]
        first, *rest = (range(low, high) for low, high in pairwise(bounds))
        others = [self.pool.submit(quietly, body, part) for part in rest]
        body(first)
        for other in others:
            other.result()

    def overflowed(self, count: int) -> None:
        """Count numbers that did not fit their format, by layer."""
        if count:
            loc = self.layout.program.source(self.layout.program.sections[0].code[self.index])
            layer = loc.layer if loc else ""
            self.outside[layer] = self.outside.get(layer, 0) + count

    def part(self, low: int, high: int) -> Machine:
        """This machine for some steps of the present block."""
        if (low, high) not in self._parts:
            part = self._parts[low, high] = copy(self)
            slots = zip(self.layout.slots, self.arrays, strict=True)
            part.arrays = [array[low * self.batch :] if slot.steps == "n0" else array for slot, array in slots]
            part._views, part.pool = {}, None
        part = self._parts[low, high]
        n = self.span["n0"][1]
        part._scratch = [array[len(array) * low // n : len(array) * high // n] for array in self._scratch]
        part.span = {"one": (0, 1), "n0": (self.span["n0"][0] + low, high - low)}
        part.backward = self.backward
        return part

    def stored(self, number: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """The stream that is written; memory that has been used is at hand sooner than new one."""
        with self._lock:
            if number not in self.streams:
                fitting = [n for n, array in enumerate(self.spare) if array.shape == shape and array.dtype == dtype]
                self.streams[number] = self.spare.pop(fitting[0]) if fitting else np.empty(shape, dtype)
            return self.streams[number]

    def trap(self, what: str, why: str = "", hint: str = "") -> Exception:
        return trap(self.layout.program, self.index, what, why, hint)


def quietly(body: Callable[[Any], None], part: Any) -> None:
    """Whether numpy warns is a matter of each thread."""
    with np.errstate(all="ignore"):
        body(part)
