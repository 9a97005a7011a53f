"""Transfers: what they do to the memories, and what of it goes over the DRAM channel.

A channel moves so many bytes a cycle, of one transfer at a time. Steps of a stream that stay on the chip go from one
memory to the other, as many words in a cycle as the vector unit is wide (ours). Words are read when a transfer is
served, and written when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.program.dispatch import Op
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.stepped.memory import Memory
from isa import Program
from isa.frozen import FrozenMap
from ssmc.ir.op import Array


@dataclass
class Effect:
    """`read` when an instruction starts (a transfer: when it is served), `write` when it ends."""

    read: Callable[[Memory], None]
    write: Callable[[Memory], None]


@dataclass(frozen=True)
class Way:
    """Bytes over the DRAM channel, and words that stay on the chip."""

    far: int
    near: int

    def cycles(self, arch: Arch) -> tuple[int, int]:
        """Of the channel, and of the way on the chip."""
        far, near = Fraction(self.far) * Fraction(arch.clock_hz), self.near
        taken, moved = 0, 0
        while far > 0:
            far, taken = far - Fraction(arch.dram.bytes_per_second), taken + 1
        while near > 0:
            near, moved = near - arch.vector.width, moved + 1
        return taken, moved


def way_of(op: Op, memory: Memory, program: Program, arch: Arch) -> Way:
    """Where the words of a transfer go."""
    ins, word = op.ins, arch.memory.word_bits // 8
    match ins.mnemonic:
        case "fetch":
            values = program.data[str(ins["src"])]
            there = memory.claim(int(ins["dst"]), str(ins["src"]), param_words(values, arch.memory.word_bits))
            return Way(0 if there else values.size * min(values.itemsize, 4), 0)
        case "const":
            return Way(int(ins["words"]) * word, 0)
        case "lookup":
            return Way(int(ins["words"]) * int(ins["count"]) * op.steps * op.samples * word, 0)
    words = int(ins["words"]) * op.samples
    near = sum(_stays(op, step, memory, program) for step in range(op.steps))
    return Way((op.steps - near) * words * word, near * words)


def _stays(op: Op, step: int, memory: Memory, program: Program) -> bool:
    """Whether a step of a stream is one of those that are written last, of a stream that does not leave the chip."""
    number = int(op.ins["src" if op.ins.mnemonic == "load" else "dst"])
    streams: Any = program.meta["streams"]
    if op.ins["steps"] == "one" or not streams[number].get("on_chip"):
        return False
    kept, total, at = int(streams[number]["on_chip"]), memory.streams[number].shape[1], op.start + step
    at = total - 1 - at if op.ins.operands.get("mirror") else at
    return at >= total - kept if streams[number].get("from_end") else at < kept


def shares_of(op: Op, size: int, backward: bool, memory: Memory, program: Program, arch: Arch) -> tuple[list[int], int]:
    """Cycles that blocks of `size` steps take, over the second number: the channel's are shared out evenly over the
    steps; of a stream that is on the chip in part each block takes what its own steps do."""
    whole = way_of(op, memory, program, arch)
    if whole.far and whole.near:
        blocks = [part_of(op, block, size, backward) for block in range(-(-op.steps // size))]
        return [sum(way_of(part, memory, program, arch).cycles(arch)) for part in blocks], 1
    sizes = [min(size, op.steps - first) for first in range(0, op.steps, size)]
    return [sum(whole.cycles(arch)) * steps for steps in sizes], op.steps


def part_of(op: Op, block: int, size: int, backward: bool) -> Op:
    """The op of one block of `size` steps, counted in the direction of its loop."""
    low, high = block * size, min((block + 1) * size, op.steps)
    first = op.steps - high if backward else low
    ins, moved = op.ins, dict(op.ins.operands)
    words = int(ins["words"])
    pitches = {"load": {"dst": words}, "store": {"src": words}}
    if ins.mnemonic == "lookup":
        pitches["lookup"] = {"dst": words * int(ins["count"]), "src": int(ins["count"])}
    for name, pitch in pitches[ins.mnemonic].items():
        moved[name] = int(ins[name]) + first * pitch
    return replace(op, ins=replace(ins, operands=FrozenMap(moved)), start=op.start + first, steps=high - low)


def _fetch(op: Op, program: Program) -> Effect:
    return Effect(
        lambda m: None,
        lambda m: m.fetch(int(op.ins["dst"]), np.asarray(program.data[str(op.ins["src"])], float)),
    )


def _into(op: Op, operand: Callable[[Memory], Array]) -> Effect:
    """Words of the operand, one row after the other, go to the scratchpad."""
    found: list[Array] = []

    def write(m: Memory) -> None:
        for value in found:
            flat, first = value.ravel(), int(op.ins["dst"])
            m.spad[first : first + len(flat)] = flat

    return Effect(lambda m: found.append(operand(m)), write)


def _const(op: Op, program: Program) -> Effect:
    return _into(op, lambda m: np.asarray(program.data[str(op.ins["src"])], float))


def _load(op: Op, program: Program) -> Effect:
    def operand(m: Memory) -> Array:
        stream = m.streams[int(op.ins["src"])][op.sample]
        if op.ins["steps"] == "one":
            return np.asarray(stream)
        way = stream[::-1] if op.ins["mirror"] else stream
        return np.array(way[op.start : op.start + op.steps])

    return _into(op, operand)


def _lookup(op: Op, program: Program) -> Effect:
    table, count = np.asarray(program.data[str(op.ins["table"])], float), int(op.ins["count"])

    def operand(m: Memory) -> Array:
        first = int(op.ins["src"])
        return np.array([table[int(number)] for number in m.spad[first : first + op.steps * count]])

    return _into(op, operand)


def _store(op: Op, program: Program) -> Effect:
    words, found = int(op.ins["words"]), list[Array]()

    def read(m: Memory) -> None:
        first = int(op.ins["src"])
        found.append(m.spad[first : first + op.steps * words].copy())

    def write(m: Memory) -> None:
        target = m.streams[int(op.ins["dst"])][op.sample]
        place: Any = ... if op.ins["steps"] == "one" else slice(op.start, op.start + op.steps)
        target[place] = found[0].reshape(target[place].shape)

    return Effect(read, write)


def effect_of(op: Op, program: Program) -> Effect:
    """What a transfer does for each of its samples."""
    every = [TRANSFERS[op.ins.mnemonic](alone, program) for alone in by_sample(op, program)]

    def read(m: Memory) -> None:
        for effect in every:
            effect.read(m)

    def write(m: Memory) -> None:
        for effect in every:
            effect.write(m)

    return Effect(read, write)


def by_sample(op: Op, program: Program) -> list[Op]:
    """The op of each sample by itself."""
    rounds = rounds_of(program)
    return [replace(op, ins=rounds.of(n, op.ins), sample=op.sample + n, samples=1) for n in range(op.samples)]


TRANSFERS: dict[str, Callable[[Op, Program], Effect]] = {
    "fetch": _fetch,
    "const": _const,
    "load": _load,
    "store": _store,
    "lookup": _lookup,
}
