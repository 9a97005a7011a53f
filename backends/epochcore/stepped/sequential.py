"""What instructions outside the array do to the memories: words are read when they start and written when they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.dispatch import Op
from backends.epochcore.rounds import rounds_of
from backends.epochcore.stepped.memory import Memory
from isa import Instruction, Program
from isa.frozen import FrozenMap
from ssmc.diagnostics import UserError
from ssmc.ir.functions import BINARY, UNARY

Array = NDArray[Any]
POOLED: dict[str, Callable[[Array, Array], Array]] = {"sum": np.add, "max": np.maximum}


@dataclass
class Effect:
    """`read` when an instruction starts (a transfer: when it is served), `write` when it ends."""

    read: Callable[[Memory], None]
    write: Callable[[Memory], None]


def _rows(memory: Memory, first: int, words: int, pitch: int, count: int) -> Array:
    """(count, words), a view where that is possible."""
    return np.stack([memory.spad[first + k * pitch : first + k * pitch + words] for k in range(count)])


def _put(memory: Memory, first: int, values: Array, pitch: int) -> None:
    for k, row in enumerate(values):
        memory.spad[first + k * pitch : first + k * pitch + len(row)] = row


def _vector(op: Op, operands: Callable[[Memory], list[Array]], compute: Callable[..., Array], pitch: int) -> Effect:
    found: list[Array] = []

    def read(memory: Memory) -> None:
        if op.steps:
            found.append(compute(*operands(memory)))

    def write(memory: Memory) -> None:
        if op.steps:
            _put(memory, int(op.ins["dst"]), found[0], pitch)

    return Effect(read, write)


def part_of(op: Op, block: int, size: int, backward: bool) -> Op:
    """The op of one block of `size` steps, counted in the direction of its loop. Raises UserError where it is none of
    those that can be stepped."""
    _check(op)
    low, high = block * size, min((block + 1) * size, op.steps)
    first = op.steps - high if backward else low
    ins, moved = op.ins, dict(op.ins.operands)
    for name, pitch in _pitches(ins).items():
        moved[name] = int(ins[name]) + first * pitch
    part = replace(ins, operands=FrozenMap(moved))
    return replace(op, ins=part, start=op.start + first, steps=high - low)


def _pitches(ins: Instruction) -> dict[str, int]:
    """Words from a step to the next, of the operands that have one row a step."""
    words = int(ins["words"])
    match ins.mnemonic:
        case "load":
            return {"dst": words}
        case "store":
            return {"src": words}
        case "unary":
            return {"dst": words, "src": words}
        case "copy":
            return {"dst": int(ins["dst_pitch"]), "src": 0 if ins["src_held"] else int(ins["src_pitch"])}
        case "gather":
            return {"dst": words, "src": int(ins["src_pitch"])}
        case "pool":
            return {"src": words}
    return {"dst": words, **{name: 0 if ins[f"{name}_held"] else _own(ins, name) for name in "ab"}}


def _own(ins: Instruction, name: str) -> int:
    """Words of an operand at a step, by its pattern."""
    words, inner = int(ins["words"]), int(ins["inner"])
    return {"each": words, "one": 1, "tile": inner, "repeat": words // inner}[str(ins[f"{name}_pattern"])]


def _unary(op: Op, memory: Memory, program: Program) -> Effect:
    words, fn = int(op.ins["words"]), UNARY[str(op.ins["fn"])]
    return _vector(op, lambda m: [_rows(m, int(op.ins["src"]), words, words, op.steps)], fn, words)


def _operand(ins: Instruction, name: str, steps: int) -> Callable[[Memory], Array]:
    words, inner, pattern = int(ins["words"]), int(ins["inner"]), str(ins[f"{name}_pattern"])
    own = _own(ins, name)
    held = bool(ins[f"{name}_held"])

    def get(memory: Memory) -> Array:
        rows = _rows(memory, int(ins[name]), own, 0 if held else own, steps)
        if pattern == "tile":
            return np.tile(rows, words // inner)
        return np.repeat(rows, inner, -1) if pattern == "repeat" else np.broadcast_to(rows, (steps, words))

    return get


def _binary(op: Op, memory: Memory, program: Program) -> Effect:
    a, b = (_operand(op.ins, name, op.steps) for name in "ab")
    return _vector(op, lambda m: [a(m), b(m)], BINARY[str(op.ins["fn"])], int(op.ins["words"]))


def _gate(op: Op, memory: Memory, program: Program) -> Effect:
    a, b = (_operand(op.ins, name, op.steps) for name in "ab")
    fn = UNARY[str(op.ins["fn"])]
    return _vector(op, lambda m: [a(m), b(m)], lambda x, y: x * fn(y), int(op.ins["words"]))


def _copy(op: Op, memory: Memory, program: Program) -> Effect:
    ins, words = op.ins, int(op.ins["words"])
    pitch = 0 if ins["src_held"] else int(ins["src_pitch"])

    def rows(memory: Memory) -> list[Array]:
        return [_rows(memory, int(ins["src"]), words, pitch, op.steps)]

    return _vector(op, rows, lambda x: x, int(ins["dst_pitch"]))


def _gather(op: Op, memory: Memory, program: Program) -> Effect:
    ins, index = op.ins, np.asarray(program.data[str(op.ins["index"])], int).ravel()
    src, pitch = int(ins["src"]), int(ins["src_pitch"])
    return _vector(op, lambda m: [_rows(m, src, pitch, pitch, op.steps)], lambda x: x[:, index], int(ins["words"]))


def _pool(op: Op, memory: Memory, program: Program) -> Effect:
    """The row is the unit's own until a block's words have all been taken into it."""
    words, fn, found = int(op.ins["words"]), POOLED[str(op.ins["fn"])], list[Array]()
    assert op.ins["steps"] == "n0", "the slow model pools streams with a row a step"

    def read(m: Memory) -> None:
        found.extend(_rows(m, int(op.ins["src"]), words, words, op.steps) if op.steps else ())

    def write(m: Memory) -> None:
        row = m.spad[int(op.ins["state"]) :][:words]
        for value in found:
            row[:] = fn(row, value)

    return Effect(read, write)


def _average(op: Op, memory: Memory, program: Program) -> Effect:
    ins, words = op.ins, int(op.ins["words"])
    steps = next(stream.shape[1] for stream in memory.streams.values() if stream.ndim == 3)
    return _vector(op, lambda m: [_rows(m, int(ins["src"]), words, words, 1)], lambda x: x / steps, words)


def _carry(op: Op, memory: Memory, program: Program) -> Effect:
    ins, words = op.ins, int(op.ins["words"])
    number, span, half = int(ins["segments"]), int(ins["span"]), 1 + bool(ins["complex"])
    size = words // half

    def operands(m: Memory) -> list[Array]:
        return [_rows(m, int(ins[name]), words * n, 0, 1)[0] for name, n in (("a", 1), ("state", 1), ("src", number))]

    def compute(a: Array, x: Array, left: Array) -> Array:
        a, x = (v[:size] + 1j * v[size:] if half == 2 else v for v in (a, x))
        found = np.zeros((half, number, size))
        for g in range(number):
            found[:, g] = np.stack([x.real, x.imag][:half])
            own = [left[(h * number + g) * size :][:size] for h in range(half)]
            if (g + 1) * span < op.steps:
                x = a * x + (own[0] + 1j * own[1] if half == 2 else own[0])
        return found.reshape(1, -1)

    return _vector(op, operands, compute, 1)


def _fill(op: Op, memory: Memory, program: Program) -> Effect:
    values = np.full((1, int(op.ins["words"])), float(op.ins["value"]))
    return _vector(op, lambda m: [], lambda: values, 1)


def _const(op: Op, memory: Memory, program: Program) -> Effect:
    values = np.asarray(program.data[str(op.ins["src"])], float).reshape(1, -1)
    return _vector(op, lambda m: [], lambda: values, 1)


def _fetch(op: Op, memory: Memory, program: Program) -> Effect:
    def write(m: Memory) -> None:
        m.params[int(op.ins["dst"])] = np.asarray(program.data[str(op.ins["src"])], float)

    return Effect(lambda m: None, write)


def _transfer(op: Op) -> tuple[int, tuple[int, ...] | slice]:
    number = int(op.ins["src" if op.ins.mnemonic == "load" else "dst"])
    return number, slice(op.start, op.start + op.steps)


def _load(op: Op, memory: Memory, program: Program) -> Effect:
    number, part = _transfer(op)
    words, one = int(op.ins["words"]), op.ins["steps"] == "one"

    def rows(m: Memory) -> list[Array]:
        stream = m.streams[number][op.sample]
        if one:
            return [stream.reshape(1, words)]
        return [(stream[::-1] if op.ins["mirror"] else stream)[part].copy()]

    return _vector(op, rows, lambda x: x, words)


def _store(op: Op, memory: Memory, program: Program) -> Effect:
    number, part = _transfer(op)
    words, found = int(op.ins["words"]), list[Array]()

    def read(m: Memory) -> None:
        if op.steps:
            found.append(_rows(m, int(op.ins["src"]), words, words, op.steps))

    def write(m: Memory) -> None:
        if op.steps:
            target = m.streams[number][op.sample]
            place = ... if op.ins["steps"] == "one" else part
            target[place] = found[0].reshape(target[place].shape)

    return Effect(read, write)


def _check(op: Op) -> None:
    if op.ins.mnemonic not in RULES:
        raise UserError(f"the slow model has no rule for '{op.ins.mnemonic}'")


def effect_of(op: Op, memory: Memory, program: Program) -> Effect:
    """What an op does for each of its samples. Raises UserError where it is none of those that can be stepped."""
    _check(op)
    every = [RULES[op.ins.mnemonic](alone, memory, program) for alone in by_sample(op, program)]

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


RULES: dict[str, Callable[[Op, Memory, Program], Effect]] = {
    "fetch": _fetch,
    "const": _const,
    "load": _load,
    "store": _store,
    "unary": _unary,
    "binary": _binary,
    "gate": _gate,
    "copy": _copy,
    "fill": _fill,
    "carry": _carry,
    "gather": _gather,
    "pool": _pool,
    "average": _average,
    "sync": lambda op, memory, program: Effect(lambda m: None, lambda m: None),
}
