"""Addresses: what lies where in the scratchpad and in the parameter memory, and the code with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil
from typing import Any

from backends.epochcore.clock.gemm import ceil_div
from backends.epochcore.lower.draft import PREAMBLE, Buffer, Draft, Param, Ref, Step
from backends.epochcore.lower.fetching import Places, place_params
from backends.epochcore.lower.flow import is_backward, is_loop
from backends.epochcore.lower.room import Room
from isa import IsaError, SectionBuilder
from isa.epochcore import EPOCHCORE
from ssmc.diagnostics import Misfit, UserError

MOST_STEPS = 65536
ELEMENTWISE = ("unary", "binary", "gate", "select")
# Passes of a loop whose parameters are fetched before the loop's streams, but for the first one loaded: in time for
# the first pass, and before a store that keeps the channel.
FETCHED_AHEAD = 4
APART = 8


@dataclass(frozen=True)
class Placed:
    """Code with addresses; `position` in it of every step by its number; chunk `limits` by loop."""

    builder: SectionBuilder
    position: Mapping[int, int]
    limits: Mapping[int, int]


@dataclass(frozen=True)
class Chunks:
    """Sequences of so many `steps` take so many times `more` chunks than there is room for."""

    steps: int = MOST_STEPS
    more: float = 1

    def shorter(self, limit: int, multiple: int) -> int:
        """Steps of a chunk where there is room for `limit` of them, a multiple of `multiple`."""
        if self.more == 1 or limit == multiple:
            return limit
        number = ceil(self.more * ceil_div(self.steps, limit))
        return min(limit, ceil_div(ceil_div(self.steps, number), multiple) * multiple)


def place(draft: Draft, rates: list[dict[str, Any]], chunks: Chunks) -> Placed:
    """Give every buffer an address and write the code. Raises Misfit where not even one step fits."""
    resident = _place_rows(draft)
    limits = {loop: _place_loop(draft, loop, resident[loop], chunks) for loop in sorted(draft.blocks) if is_loop(loop)}
    params, overlay = place_params(draft, lambda loop: limits[loop] < chunks.steps)
    writer = _Writer(draft, params, overlay)
    builder = writer.builder
    for step in draft.blocks[PREAMBLE]:
        writer.write(step)
    builder.loc = None
    shared, window = _windows(draft)
    each = {"together": draft.together, "base": shared, "window": window} if draft.together > 1 else {}
    builder.emit("samples", end="done", **each)
    for stage in sorted(s for s in draft.blocks if s != PREAMBLE):
        steps = draft.blocks[stage]
        if not overlay:
            writer.fetch_first(steps)
        builder.loc = None
        if is_loop(stage):
            fields = {"backward": is_backward(stage), "multiple": draft.multiples.get(stage, 1)}
            builder.emit("chunks", limit=limits[stage], end=f"end{stage // 2}", **fields)
            for rate in rates:
                builder.emit("rate", **rate)
        (writer.write_in_turns if overlay else writer.write_kept)(steps)
        if is_loop(stage):
            builder.label(f"end{stage // 2}")
    builder.loc = None
    builder.label("done")
    builder.emit("halt")
    return Placed(builder, writer.position, limits)


@dataclass
class _Writer:
    """Instructions with addresses. Where parameters have room they are fetched once (in the program's order, the next
    time nothing moves); else (`overlay`) each time before they are used."""

    draft: Draft
    params: Places
    overlay: bool
    builder: SectionBuilder = field(default_factory=lambda: SectionBuilder(EPOCHCORE, "main"))
    position: dict[int, int] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)

    def fetch(self, step: Step) -> None:
        """Fetch the parameters of a step, unless they stay where they are and are there."""
        for value in step.operands.values():
            if isinstance(value, Param) and (self.overlay or value.name not in self.there):
                self.there.add(value.name)
                self.builder.loc = step.loc
                self.builder.emit("fetch", dst=self.params[step.number, value.name], src=value.name)

    def fetch_first(self, steps: list[Step]) -> None:
        """Before a loop: what its first passes need, or the first one alone where it loads streams first."""
        for step in _preloads(steps)[: 1 if _entrance(steps) else FETCHED_AHEAD]:
            self.fetch(step)

    def write_kept(self, steps: list[Step]) -> None:
        """Code of a stage; what more its first passes need follows the first stream in the channel."""
        entrance = _entrance(steps)
        for step in steps:
            self.fetch(step)
            self.write(step)
            if step is entrance:
                for ahead in _preloads(steps)[:FETCHED_AHEAD]:
                    self.fetch(ahead)

    def write_in_turns(self, steps: list[Step]) -> None:
        """Code of a stage; the parameters of a pass are fetched while those of the one before are used."""
        coming = _preloads(steps)
        for step in coming[:1]:
            self.fetch(step)
        for step in steps:
            self.write(step)
            if coming and step is coming[0]:
                del coming[0]
                for following in coming[:1]:
                    self.fetch(following)

    def write(self, step: Step) -> None:
        operands = dict(step.operands)
        for key, value in operands.items():
            if isinstance(value, Ref):
                operands[key] = value.buffer.address + value.offset
            elif isinstance(value, Param):
                operands[key] = self.params[step.number, value.name]
        self.builder.loc = step.loc
        self.position[step.number] = len(self.builder)
        try:
            self.builder.emit(step.mnemonic, **operands)
        except IsaError as error:
            where = "" if step.loc is None else f"layer '{self.draft.locs[step.loc].layer}'"
            raise UserError(
                "the layer is too large for an instruction", where=where, why=str(error), hint="make the layer narrower"
            ) from error


def _preloads(steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.mnemonic == "preload"]


def _entrance(steps: list[Step]) -> Step | None:
    return next((step for step in steps if step.mnemonic == "load"), None)


def _place_rows(draft: Draft) -> dict[int, int]:
    """Give rows their places by the stages in which they are in use; returns where the room beside them begins in each.

    What is written before the samples stays for all of them. Of the rest, rows of one size that are in use in different
    stages share a place, where all of them apart would take more than an `APART`th of the scratchpad: a sequence waits
    for the one before at what they share.
    """
    last = max(draft.blocks)
    life: dict[Buffer, tuple[int, int]] = {}
    for stage, steps in sorted(draft.blocks.items()):
        end = last if stage == PREAMBLE else stage
        for buffer in {ref.buffer: None for step in steps for ref in step.operands.values() if isinstance(ref, Ref)}:
            if buffer.loop is None:
                life[buffer] = life.get(buffer, (stage, end))[0], max(end, life.get(buffer, (stage, end))[1])
    scarce = APART * sum(buffer.words for buffer in life) > draft.arch.memory.scratchpad_words
    resident, top = dict.fromkeys(draft.blocks, 0), 0
    free: dict[int, list[tuple[int, int]]] = {}  # by size, a heap of places with the last stage of who has them
    for buffer, (first, end) in sorted(life.items(), key=lambda item: item[1][0]):
        places = free.setdefault(buffer.words, []) if scarce else []
        if places and places[0][0] < first:
            buffer.address = heappop(places)[1]
        else:
            buffer.address, top = top, top + buffer.words
        heappush(places, (end, buffer.address))
        for stage in range(first, end + 1) if scarce else resident:
            if stage in resident:
                resident[stage] = max(resident[stage], buffer.address + buffer.words)
    most, bound = max(resident.values()), sum(_windows(draft))
    if most > bound:
        raise Misfit(
            "constants and carried values in the scratchpad",
            most,
            bound,
            unit="words",
            levers="a larger memory.scratchpad_words, or a narrower model",
        )
    return resident


def _windows(draft: Draft) -> tuple[int, int]:
    """Words that are the same for all samples, which lie first, and words for each sample that is run with others."""
    rows = [ref.buffer for step in draft.blocks[PREAMBLE] for ref in step.operands.values() if isinstance(ref, Ref)]
    shared = sum(buffer.words for buffer in dict.fromkeys(rows))
    return shared, (draft.arch.memory.scratchpad_words - shared) // draft.together


def _place_loop(draft: Draft, loop: int, resident: int, chunks: Chunks) -> int:
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
    width = _pack(life, {buffer: _overwritable(steps[first], buffer) for buffer, (first, _) in life.items()})
    bound, multiple = sum(_windows(draft)), draft.multiples.get(loop, 1)
    most = 1 if loop in draft.single else max(min(MOST_STEPS, draft.most.get(loop, MOST_STEPS)), multiple)
    if most > draft.most.get(loop, most) or (loop in draft.single and loop in draft.most):
        raise Misfit("chunks of whole windows in segments of time", most, draft.most[loop], unit="steps")
    limit = min((bound - resident) // width, most) // multiple * multiple
    if limit < 1:
        raise Misfit(
            "one step of the model in the scratchpad" if multiple == 1 else f"{multiple} steps in the scratchpad",
            resident + width * multiple,
            bound,
            unit="words",
            where=f"{resident} words are carried, a step takes {width}",
            levers="a larger memory.scratchpad_words, or a narrower model",
        )
    limit = chunks.shorter(limit, multiple)
    for buffer in life:
        buffer.address = resident + buffer.offset * limit
    return limit


def _pack(life: Mapping[Buffer, tuple[int, int]], overwritable: Mapping[Buffer, Sequence[Buffer]]) -> int:
    """Give buffers that are in use from a first to a last instruction the lowest offsets where they fit, or those of
    what the first one may overwrite and is the last to use; returns the words of all."""
    room, owner = Room(), dict[int, Buffer]()  # by offset, who lies there
    ending: list[tuple[int, int, Buffer]] = []
    for number, (buffer, (first, last)) in enumerate(sorted(life.items(), key=lambda item: item[1])):
        while ending and ending[0][0] < first:
            gone = heappop(ending)[2]
            if owner.get(gone.offset) is gone:
                del owner[gone.offset]
                room.free(gone.offset, gone.width)
        given_up = (b for b in overwritable[buffer] if life[b][0] < first == life[b][1] and owner.get(b.offset) is b)
        instead = next(given_up, None)
        buffer.offset = room.take(buffer.width) if instead is None else instead.offset
        owner[buffer.offset] = buffer
        heappush(ending, (last, number, buffer))
    return max((buffer.offset + buffer.width for buffer in life), default=1)


def _overwritable(step: Step, buffer: Buffer) -> list[Buffer]:
    """Operands of the step that makes `buffer` whose words it reads one by one: its results may take their places."""
    if step.mnemonic not in ELEMENTWISE or step.operands["dst"] != buffer.at():
        return []
    if step.operands["words"] != buffer.words:
        return []
    refs = [
        step.operands[name]
        for name in ("src", "a", "b", "c")
        if isinstance(step.operands.get(name), Ref) and step.operands.get(f"{name}_pattern", "each") == "each"
    ]
    whole = (ref.buffer for ref in refs if ref == ref.buffer.at())
    return [b for b in whole if (b.loop, b.words, b.every) == (buffer.loop, buffer.words, buffer.every)]
