"""A program being written: instructions over named buffers, addresses still open; and giving them addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch
from backends.epochcore.flow import is_backward, is_loop
from backends.epochcore.parameters import param_words
from isa import IsaError, Loc, SectionBuilder
from isa.epochcore import EPOCHCORE
from ssmc.diagnostics import Misfit, UserError

Array = NDArray[Any]
PREAMBLE = -1
MOST_STEPS = 65536
# Passes of a loop whose parameters are fetched before the loop's own streams.
FETCHED_AHEAD = 4


@dataclass(eq=False)
class Buffer:
    """Words in the scratchpad: one row (`loop` None), or a row every so many steps within one loop over time."""

    words: int
    loop: int | None
    every: int = 1
    offset: int = 0  # words, times the chunk's steps where it has a row a step
    address: int = 0

    def at(self, offset: int = 0) -> Ref:
        return Ref(self, offset)

    @property
    def width(self) -> int:
        """Words a step."""
        return -(-self.words // self.every)


@dataclass(frozen=True)
class Ref:
    """Word `offset` of the first row of a buffer."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True)
class Param:
    """The place in the parameter memory of a constant."""

    name: str


@dataclass(frozen=True)
class Step:
    """An instruction whose operands may still be `Ref` or `Param`."""

    mnemonic: str
    operands: Mapping[str, Any]
    loc: int | None


@dataclass
class Draft:
    """Blocks of instructions by stage (see `flow`), the constants, and where instructions come from.

    `multiples` are what the chunks of a loop are multiples of. A `measured` draft is for its costs: its constants are
    all zeros but for orders of words, none of them shared, none of them in memory.
    """

    arch: Arch
    measured: bool = False
    multiples: dict[int, int] = field(default_factory=dict)
    blocks: dict[int, list[Step]] = field(default_factory=lambda: {PREAMBLE: []})
    data: dict[str, Array] = field(default_factory=dict)
    locs: list[Loc] = field(default_factory=list)
    rows: list[Buffer] = field(default_factory=list)
    known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    written: dict[Buffer, Step] = field(default_factory=dict)
    loc: int | None = None

    def emit(self, stage: int, mnemonic: str, /, **operands: Any) -> Step:
        step = Step(mnemonic, operands, self.loc)
        self.blocks.setdefault(stage, []).append(step)
        for key in ("dst", "state"):
            if isinstance(ref := operands.get(key), Ref):
                self.written[ref.buffer] = step
        return step

    def whole(self, stage: int, steps: int) -> None:
        """Chunks of a loop do not cut what spans so many steps."""
        self.multiples[stage] = lcm(self.multiples.get(stage, 1), steps)

    def row(self, words: int) -> Buffer:
        """One row that stays where it is for the whole program."""
        buffer = Buffer(words, None)
        self.rows.append(buffer)
        return buffer

    def constant(self, name: str, array: Array) -> str:
        """Keep a constant under `name` (or that of an equal one of the same kind); returns the name."""
        if self.measured:
            name = f"{name}.{len(self.data)}"
            # the order of words decides which banks of the scratchpad they meet in
            is_order = array.dtype == np.int32
            self.data[name] = array if is_order else np.broadcast_to(np.zeros((), array.dtype), array.shape)
            return name
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.known:
            free, count = name, 1
            while free in self.data:
                free, count = f"{name}.{count}", count + 1
            self.data[free] = array
            self.known[key] = free
        return self.known[key]


@dataclass(frozen=True)
class Placed:
    """Code with addresses; `position` of every draft step in it; chunk `limits` by loop."""

    builder: SectionBuilder
    position: Mapping[int, int]
    limits: Mapping[int, int]


def place(draft: Draft, rates: list[dict[str, Any]]) -> Placed:
    """Give every buffer an address and write the code. Raises Misfit where not even one step fits."""
    resident = _place_rows(draft)
    limits = {loop: _place_loop(draft, loop, resident) for loop in sorted(draft.blocks) if is_loop(loop)}
    params, overlay = _place_params(draft)
    builder, position = SectionBuilder(EPOCHCORE, "main"), {}
    # fetched where it is first used, under way while what comes before computes; nothing moves the next time
    there: set[str] = set()

    def fetch(step: Step) -> None:
        for value in step.operands.values():
            if isinstance(value, Param) and value.name not in there:
                there.add(value.name)
                builder.loc = step.loc
                builder.emit("fetch", dst=params[id(step), value.name], src=value.name)

    def write(step: Step) -> None:
        if not overlay:
            fetch(step)
        builder.loc = step.loc
        operands = dict(step.operands)
        for key, value in operands.items():
            if isinstance(value, Ref):
                operands[key] = value.buffer.address + value.offset
            elif isinstance(value, Param):
                operands[key] = params[id(step), value.name]
                if overlay:
                    builder.emit("fetch", dst=operands[key], src=value.name)
        position[id(step)] = len(builder)
        try:
            builder.emit(step.mnemonic, **operands)
        except IsaError as error:
            where = "" if step.loc is None else f"layer '{draft.locs[step.loc].layer}'"
            raise UserError(
                "the layer is too large for an instruction", where=where, why=str(error), hint="make the layer narrower"
            ) from error

    for step in draft.blocks[PREAMBLE]:
        write(step)
    builder.loc = None
    builder.emit("samples", end="done")
    for stage in sorted(s for s in draft.blocks if s != PREAMBLE):
        if not overlay:
            for step in [step for step in draft.blocks[stage] if step.mnemonic == "preload"][:FETCHED_AHEAD]:
                fetch(step)
        builder.loc = None
        if is_loop(stage):
            fields = {"backward": is_backward(stage), "multiple": draft.multiples.get(stage, 1)}
            builder.emit("chunks", limit=limits[stage], end=f"end{stage // 2}", **fields)
            for rate in rates:
                builder.emit("rate", **rate)
        for step in draft.blocks[stage]:
            write(step)
        if is_loop(stage):
            builder.label(f"end{stage // 2}")
    builder.loc = None
    builder.label("done")
    builder.emit("halt")
    return Placed(builder, position, limits)


def _place_rows(draft: Draft) -> int:
    address = 0
    for buffer in draft.rows:
        buffer.address = address
        address += buffer.words
    bound = draft.arch.memory.scratchpad_words
    if address > bound:
        raise Misfit(
            "constants and carried values in the scratchpad",
            address,
            bound,
            unit="words",
            levers="a larger memory.scratchpad_words, or a narrower model",
        )
    return address


def _place_loop(draft: Draft, loop: int, resident: int) -> int:
    """Pack the buffers of a loop by their lifetimes, in words a step; returns how many steps fit."""
    steps = draft.blocks[loop]
    life: dict[Buffer, tuple[int, int]] = {}
    kept: set[Buffer] = set()
    for index, step in enumerate(steps):
        for value in step.operands.values():
            if isinstance(value, Ref) and value.buffer.loop == loop:
                life[value.buffer] = (life.get(value.buffer, (index, 0))[0], index)
        if step.mnemonic == "load" and isinstance(ref := step.operands["dst"], Ref) and ref.buffer.loop == loop:
            # nobody else's: the next chunk is loaded as soon as this one has been read
            kept.add(ref.buffer)
    life |= dict.fromkeys(kept & life.keys(), (0, len(steps)))
    placed: list[tuple[int, int, Buffer]] = []
    for buffer, (first, last) in sorted(life.items(), key=lambda item: item[1]):
        busy = sorted((b.offset, b.offset + b.width) for start, end, b in placed if start <= last and first <= end)
        offset = 0
        for low, high in busy:
            if offset + buffer.width <= low:
                break
            offset = max(offset, high)
        buffer.offset = offset
        placed.append((first, last, buffer))
    width = max((b.offset + b.width for *_, b in placed), default=1)
    bound, multiple = draft.arch.memory.scratchpad_words, draft.multiples.get(loop, 1)
    limit = min((bound - resident) // width, MOST_STEPS) // multiple * multiple
    if limit < 1:
        raise Misfit(
            "one step of the model in the scratchpad" if multiple == 1 else f"{multiple} steps in the scratchpad",
            resident + width * multiple,
            bound,
            unit="words",
            where=f"{resident} words are carried, a step takes {width}",
            levers="a larger memory.scratchpad_words, or a narrower model",
        )
    for buffer in life:
        buffer.address = resident + buffer.offset * limit
    return limit


Places = dict[tuple[int, str], int]


def _place_params(draft: Draft) -> tuple[Places, bool]:
    """Addresses by step and constant; True where not all fit at once and each is fetched before its use."""
    uses = [
        (id(step), [value.name for value in step.operands.values() if isinstance(value, Param)])
        for steps in draft.blocks.values()
        for step in steps
    ]
    sizes = {name: param_words(draft.data[name], draft.arch.memory.word_bits) for _, names in uses for name in names}
    bound = draft.arch.memory.parameter_words
    if sum(sizes.values()) <= bound:
        ends = np.cumsum(list(sizes.values())).tolist()
        starts = {name: end - sizes[name] for name, end in zip(sizes, ends, strict=True)}
        return {(step, name): starts[name] for step, names in uses for name in names}, False
    places: Places = {}
    half, turn = bound // 2, 0
    for step, names in uses:
        need = sum(sizes[name] for name in dict.fromkeys(names))
        if need > half:
            raise Misfit(
                "parameters of one pass over the array in half of the parameter memory",
                need,
                half,
                unit="words",
                levers="a larger memory.parameter_words, or a smaller array",
            )
        address = half * turn
        for name in dict.fromkeys(names):
            places[step, name], address = address, address + sizes[name]
        turn = 1 - turn if names else turn
    return places, True
