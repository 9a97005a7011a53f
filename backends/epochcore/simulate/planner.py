"""Before a run: walk the code once, check every address, and turn instructions into actions.

The scratchpad holds buffers: rows of `pitch` words, one row or a row a step. A write makes a buffer and ends those it
overlaps; a read must find what was written. A loop is walked twice, so that its second round is checked too; those that
it holds are walked once then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.arch import Arch, parse_arch
from backends.epochcore.floats import restored
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.rates import most_rows
from backends.epochcore.program.rounds import ALONE, Rounds, given
from backends.epochcore.program.table import parts_of
from backends.epochcore.program.traps import trap
from backends.epochcore.simulate.buffers import Access, Layout, Preload, Slot, Use
from backends.epochcore.simulate.extents import Extents
from backends.epochcore.simulate.plan import Action, Do, Item, Loop, Plan
from backends.epochcore.simulate.precision import narrow_makers
from backends.epochcore.simulate.refinement import refined
from isa import Instruction, Program
from ssmc.diagnostics import UserError

Rule = Callable[["Planner", Instruction], Action | None]


@dataclass
class _Buffer:
    base: int
    end: int
    slot: Slot
    written: Extents
    maker: int  # the instruction that made it


@dataclass
class Planner:
    """What is known while the code is walked."""

    program: Program
    arch: Arch
    ideal: bool
    rules: Mapping[str, Rule]
    narrow: frozenset[int] = frozenset()  # makers of buffers of float32
    once: bool = False  # whether second rounds are known to be right
    index: int = 0
    limit: int = 0
    multiple: int = 1
    rounds: Rounds = ALONE
    slots: dict[tuple[int, int, str, bool, bool], Slot] = field(default_factory=dict)
    buffers: list[_Buffer] = field(default_factory=list)
    params: list[tuple[int, int, str]] = field(default_factory=list)
    rates: dict[str, Instruction] = field(default_factory=dict)
    stored: bool = False  # whether the states of the last pass have been taken out
    wide_streams: set[int] = field(default_factory=set)  # those that are stored from float64
    shadow: Preload | None = None
    active: Preload | None = None
    states: tuple[int, int, int] | None = None
    used: dict[int, Preload] = field(default_factory=dict)
    uses: dict[Use, None] = field(default_factory=dict)
    results: dict[int, dict[int, Slot]] = field(default_factory=dict)

    # -- errors ----------------------------------------------------------------------------------------------

    def trap(self, what: str, why: str = "", hint: str = "") -> UserError:
        return trap(self.program, self.index, what, why, hint)

    # -- scratchpad ------------------------------------------------------------------------------------------

    def read(self, address: int, words: int, *, steps: str = "one", pitch: int | None = None) -> Access:
        """Words that an instruction reads. Raises UserError where nothing has written them."""
        for buffer in self.buffers:
            if buffer.base <= address < buffer.end and self._reads(buffer, steps, pitch):
                offset = address - buffer.base
                if offset + words <= buffer.slot.pitch and buffer.written.covers(offset, offset + words):
                    self.uses[Use(self.index, buffer.maker, writes=False)] = None
                    return Access(buffer.slot, offset, words)
        rows = "a row" if steps == "one" else f"rows by {steps}"
        raise self.trap(
            f"reads {words} words at spad[{address}] ({rows}) that nothing has written",
            self._lying(address, address + words),
            "write the buffer first, with the same pitch and steps",
        )

    def _lying(self, low: int, high: int) -> str:
        """What lies at some words of the scratchpad."""
        found, section = list[str](), self.program.sections[0]
        for buffer in self.buffers:
            if buffer.base < high and low < buffer.end:
                rows = "a row" if buffer.slot.steps == "one" else f"rows by {buffer.slot.steps}, a pitch"
                by = f"instruction {buffer.maker} ({section.code[buffer.maker].mnemonic})"
                found.append(f"{by} wrote {rows} of {buffer.slot.pitch} words at spad[{buffer.base}]")
        return "\n       ".join(found)

    def _reads(self, buffer: _Buffer, steps: str, pitch: int | None) -> bool:
        return buffer.slot.steps == steps and (steps == "one" or pitch in (None, buffer.slot.pitch))

    def update(self, address: int, words: int, *, steps: str, pitch: int) -> Access:
        """Words that an instruction adds to. Raises UserError where nothing has written them."""
        access = self.read(address, words, steps=steps, pitch=pitch)
        self._writes(next(b for b in self.buffers if b.base <= address < b.end and b.slot is access.slot))
        return access

    def _writes(self, buffer: _Buffer) -> None:
        self.uses[Use(self.index, buffer.maker, writes=True)] = None
        self.results.setdefault(self.index, {})[buffer.base] = buffer.slot

    def write(
        self, address: int, words: int, *, steps: str = "one", pitch: int | None = None, shared: bool = False
    ) -> Access:
        """Words that an instruction writes; ends other buffers there. Raises UserError outside the scratchpad."""
        pitch = words if pitch is None else pitch
        size = pitch * most_rows(steps, self.limit, self.rates)
        for buffer in self.buffers:
            inside = buffer.base <= address and address - buffer.base + words <= buffer.slot.pitch
            same = steps == "one" or (buffer.slot.pitch == pitch and buffer.end - buffer.base == size)
            # whole rows a step are a new value, which may have another format
            renewed = steps != "one" and words == pitch
            if inside and same and not renewed and buffer.slot.steps == steps and buffer.slot.shared == shared:
                offset = address - buffer.base
                buffer.written.add(offset, offset + words)
                self._writes(buffer)
                return Access(buffer.slot, offset, words)
        if words > pitch:
            raise self.trap(f"writes {words} words into rows of {pitch}")
        end = address + size
        bound = self.arch.memory.scratchpad_words
        if end > bound:
            raise self.trap(
                f"writes up to spad[{end - 1}], outside the scratchpad",
                f"the scratchpad has {bound} words",
                "a larger memory.scratchpad_words, or a smaller chunk limit",
            )
        if not self.rounds.owns(address, end):
            window = f"spad[{self.rounds.base}] to spad[{self.rounds.base + self.rounds.window - 1}]"
            raise self.trap(f"writes spad[{address}] to spad[{end - 1}]", f"a sample's own words are {window}")
        self.buffers = [b for b in self.buffers if b.end <= address or b.base >= end]
        wide = steps == "one" or self.index not in self.narrow
        key = (address, pitch, steps, shared, wide)
        slot = self.slots.setdefault(key, Slot(len(self.slots), pitch, steps, shared, wide))
        self.buffers.append(_Buffer(address, end, slot, Extents([0], [words]), self.index))
        self._writes(self.buffers[-1])
        return Access(slot, 0, words)

    # -- the array -------------------------------------------------------------------------------------------

    def fetch(self, address: int, name: str) -> None:
        """A constant comes into the parameter memory. Raises UserError outside it."""
        end = address + param_words(self.program.data[name], self.arch.memory.word_bits)
        if end > self.arch.memory.parameter_words:
            raise self.trap(
                f"writes up to param[{end - 1}], outside the parameter memory",
                f"the parameter memory has {self.arch.memory.parameter_words} words",
                "a larger memory.parameter_words, or another place",
            )
        self.params = [p for p in self.params if p[1] <= address or p[0] >= end]
        self.params.append((address, end, name))

    def param(self, address: int) -> NDArray[Any]:
        for start, _, name in self.params:
            if start == address:
                return restored(np.asarray(self.program.data[name]))
        there = ", ".join(f"{name} at param[{start}]" for start, _, name in sorted(self.params)[:8])
        why = f"there are: {there}{', ...' if len(self.params) > 8 else ''}" if there else ""
        raise self.trap(f"preloads param[{address}], where no constant was fetched to", why, "fetch it there first")

    def programmed(self, mode: str) -> Preload:
        """What the array holds for an instruction of `mode`. Raises UserError where it is not programmed for it."""
        self.stored = False
        if self.shadow is not None:
            self.active, self.shadow = self.shadow, None
        if self.active is None or self.active.ins["mode"] != mode:
            held = "nothing" if self.active is None else f"parameters for {self.active.ins['mode']}"
            raise self.trap(f"runs '{mode}' on an array that holds {held}", hint=f"preload with mode {mode} first")
        if mode not in ("mac", "mac.os") and self.states != self.active.shape:
            raise self.trap(f"runs '{mode}' on elements without its states", hint="state.load first")
        if self.used.setdefault(self.index, self.active).ins != self.active.ins:
            raise self.trap("finds other parameters in the array in the second round of its loop")
        self._check_segments(self.active.ins)
        return self.active

    def _check_segments(self, held: Instruction) -> None:
        ins = self.program.sections[0].code[self.index]
        most = most_rows(str(ins["steps"]), self.limit, self.rates)
        if (segments := int(held["segments"])) > 1 and segments * int(held["span"]) < most:
            raise self.trap(
                f"takes up to {most} steps in {segments} segments of {held['span']}",
                hint="shorter chunks, or longer segments",
            )

    def coming(self) -> Preload:
        """The parameters that the next array instruction will work with."""
        found = self.shadow or self.active
        if found is None:
            raise self.trap("moves states of an array that holds no parameters", hint="preload first")
        return found

    # -- walking ---------------------------------------------------------------------------------------------

    def walk(self, start: int, end: int) -> Iterator[Item]:
        section = self.program.sections[0]
        index = start
        while index < end:
            ins = section.code[index]
            self.index = index
            if ins.mnemonic == "halt":
                return
            if ins.mnemonic in ("samples", "chunks"):
                stop = section.labels[str(ins["end"])]
                if stop <= index or stop > end:
                    raise self.trap(f"loops to '{ins['end']}', which is not a place after it in the same block")
                yield Loop(ins, self._loop(ins, index, stop))
                index = stop
                continue
            action = self.rules[ins.mnemonic](self, ins)
            if action is not None:
                # segments without steps begin somewhere, too
                steps = None if ins.mnemonic == "carry" else ins.operands.get("steps")
                yield Do(index, ins, action, str(steps) if steps not in (None, "one", "n0") else None)
            index += 1

    def _loop(self, ins: Instruction, index: int, stop: int) -> tuple[Item, ...]:
        outer = self.limit
        if ins.mnemonic == "chunks":
            if outer:
                raise self.trap("stands within another loop over chunks")
            self.limit, self.multiple = int(ins["limit"]), int(ins["multiple"])
            # streams of the loop before are over: parts of new ones may lie as if they were parts of these
            self.buffers = [buffer for buffer in self.buffers if buffer.slot.steps == "one"]
            if self.limit % self.multiple:
                raise self.trap(f"has room for {self.limit} steps, which is no multiple of {self.multiple}")
        elif (rounds := given(ins)).together > 1:
            self.rounds, self.shadow, self.active = rounds, None, None
            if rounds.end > self.arch.memory.scratchpad_words:
                words = f"the scratchpad has {self.arch.memory.scratchpad_words} words"
                raise self.trap(f"gives samples words up to spad[{rounds.end - 1}]", words)
        body = tuple(self.walk(index + 1, stop))
        if not self.once:
            self.once = True
            for _ in self.walk(index + 1, stop):
                pass
            self.once = False
        self.limit = outer
        if ins.mnemonic == "samples":
            self.rounds = ALONE
        return body


def make_plan(program: Program, rules: Mapping[str, Rule]) -> Plan:
    """Check a program and prepare it. Raises UserError on a trap."""
    if len(program.sections) != 1:
        raise UserError("an epochcore program has one section", hint=f"this one has {len(program.sections)}")
    arch, ideal = parse_arch(program.arch), program.meta.get("numbers") == "ideal"
    end = len(program.sections[0].code)
    planner = Planner(program, arch, ideal, rules)
    items = tuple(planner.walk(0, end))
    narrow = narrow_makers(program, planner.uses) if ideal else frozenset()
    if narrow:
        planner = Planner(program, arch, ideal, rules, narrow, once=True)
        items = tuple(planner.walk(0, end))
    bindings = [port.binding for port in program.outputs]
    kept = {int(bound["stream"]) for bound in bindings if isinstance(bound, dict) and "stream" in bound}
    kept |= {number for number, (whole, _, _) in parts_of(program).items() if whole in kept}
    items = refined(items, kept, planner.results if ideal else {})
    return Plan(Layout(program, arch, ideal, tuple(planner.slots.values()), planner.rates), items, planner.results)
