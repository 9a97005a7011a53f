"""What the lanes of the vector unit do within a step, word by word; see `lanes`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from math import cos, exp, log, sin, sqrt
from typing import Any

import numpy as np

from backends.epochcore.stepped.lanes import Rule, Slot, Sweep, Unit, asleep, chain
from isa import Instruction
from ssmc.ir.functions import BINARY, UNARY

# what adders, comparators and rounders do in one pass; all else is looked up and interpolated
SIMPLE = ("identity", "neg", "abs", "sign", "relu", "square", "floor", "ceil", "round", "heaviside")


def rows(u: Unit, steps: Sequence[int]) -> Iterator[tuple[int, int, Instruction]]:
    """Every step of every sample: its row, the number of the sample, its instruction."""
    for row in steps:
        for sample, ins in enumerate(u.each):
            yield row, sample, ins


def passes_of(u: Unit, name: str) -> int:
    """Passes through the vector unit that a function takes."""
    return 1 if name in (*SIMPLE, "heaviside_or_equal") else u.function


def of_one(name: str) -> Callable[[float], float]:
    """A function of one number."""
    return lambda x: float(UNARY[name](np.array([x]))[0])


def of_two(name: str) -> Callable[[float, float], float]:
    """A function of two numbers."""
    return lambda x, y: float(BINARY[name](np.array([x]), np.array([y]))[0])


def unary(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    words, fn, found = u.number("words"), of_one(str(u.op.ins["fn"])), Sweep()
    for row, _, ins in rows(u, steps):
        for f in range(row * words, (row + 1) * words):
            found += chain(passes_of(u, str(ins["fn"])), _applied(u, fn, int(ins["dst"]) + f, [int(ins["src"]) + f]))
    yield found


def _applied(u: Unit, fn: Callable[..., float], target: int, sources: Sequence[int]) -> Slot:
    return lambda: u.put(target, fn(*(u.word(at) for at in sources)))


def _place(ins: Instruction, name: str, row: int, f: int) -> int:
    """Where the word of an operand lies that meets word f of the result."""
    words, inner = int(ins["words"]), int(ins["inner"])
    pitch, word = {
        "each": (words, f),
        "one": (1, 0),
        "tile": (inner, f % inner),
        "repeat": (words // inner, f // inner),
    }[str(ins[f"{name}_pattern"])]
    return int(ins[name]) + (0 if ins[f"{name}_held"] else row * pitch) + word


def _pairs(u: Unit, steps: Sequence[int], passes: int, fn: Callable[[float, float], float]) -> Sweep:
    words, found = u.number("words"), Sweep()
    for row, _, ins in rows(u, steps):
        for f in range(words):
            target = int(ins["dst"]) + row * words + f
            found += chain(passes, _applied(u, fn, target, [_place(ins, name, row, f) for name in "ab"]))
    return found


def binary(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A power is a logarithm, a product and an exponential; a quotient is looked up as one function."""
    name = str(u.op.ins["fn"])
    yield _pairs(u, steps, {"div": u.function, "pow": 2 * u.function + 1}.get(name, 1), of_two(name))


def gate(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    name = str(u.op.ins["fn"])
    fn = of_one(name)
    yield _pairs(u, steps, passes_of(u, name) + 1, lambda a, b: a * fn(b))


def select(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    words, found = u.number("words"), Sweep()
    for row, _, ins in rows(u, steps):
        for f in range(words):
            places = [int(ins[name]) + (0 if ins[f"{name}_held"] else row * words) + f for name in "cab"]
            target = int(ins["dst"]) + row * words + f
            found.append(_applied(u, lambda c, a, b: a if c != 0 else b, target, places))
    yield found


def _each(u: Unit, steps: Sequence[int], of: Callable[[int, int, Instruction, int], list[Slot]]) -> Sweep:
    """`of(row, sample, ins, word)` for all words of the steps, in order."""
    every = ((row, n, ins, f) for row, n, ins in rows(u, steps) for f in range(u.number("words")))
    return [slot for at in every for slot in of(*at)]


def norm(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """Means, unless the mean stays; mean squares; then the words. The root is taken where the sum comes out."""
    words, layer, affine = u.number("words"), u.op.ins["kind"] == "layer", bool(u.op.ins["affine"])
    size = words // u.number("vectors")
    group = size // u.number("groups")

    def source(row: int, ins: Instruction, f: int) -> float:
        return u.word(int(ins["src"]) + row * words + f)

    def summed(row: int, n: int, ins: Instruction, f: int) -> list[Slot]:
        return [lambda: u.collect(("sum", row, n, f // group), source(row, ins, f))]

    def mean(row: int, n: int, f: int) -> float:
        return u.there(("sum", row, n, f // group)) / group if layer else 0.0

    def squared(row: int, n: int, ins: Instruction, f: int) -> list[Slot]:
        def slot() -> None:
            u.collect(("square", row, n, f // group), (source(row, ins, f) - mean(row, n, f)) ** 2)

        return [slot]

    def scaled(row: int, n: int, ins: Instruction, f: int) -> list[Slot]:
        def slot() -> None:
            par = int(ins["par"])
            root = sqrt(u.there(("square", row, n, f // group)) / group + u.known((n, "epsilon"), par))
            value = (source(row, ins, f) - mean(row, n, f)) / root
            if affine:
                word = f % size
                scale, shift = (u.known((n, at), par + 1 + at) for at in (word, size + word))
                value = value * scale + shift
            u.put(int(ins["dst"]) + row * words + f, value)

        return [slot]

    for of in ([summed] if layer else []) + [squared, scaled]:
        yield _each(u, steps, of)


def softmax(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """Largest words; exponentials, which lie where the result will, and their sums; then quotients."""
    words, size, in_log = u.number("words"), u.number("words") // u.number("vectors"), bool(u.op.ins["log"])

    def source(row: int, ins: Instruction, f: int) -> float:
        return u.word(int(ins["src"]) + row * words + f)

    def largest(row: int, n: int, ins: Instruction, f: int) -> list[Slot]:
        return [lambda: u.collect(("max", row, n, f // size), source(row, ins, f), max)]

    def raised(row: int, n: int, ins: Instruction, f: int) -> list[Slot]:
        def slot() -> None:
            e = exp(source(row, ins, f) - u.there(("max", row, n, f // size)))
            u.collect(("sum", row, n, f // size), e)
            if not in_log:
                u.put(int(ins["dst"]) + row * words + f, e)

        return chain(u.function, slot)

    def divided(row: int, n: int, ins: Instruction, f: int) -> list[Slot]:
        def slot() -> None:
            target, total = int(ins["dst"]) + row * words + f, u.there(("sum", row, n, f // size))
            if in_log:
                u.put(target, source(row, ins, f) - u.there(("max", row, n, f // size)) - log(total))
            else:
                u.put(target, u.word(target) / total)

        return [slot]

    for of in (largest, raised, divided):
        yield _each(u, steps, of)


FOLDS: dict[str, Callable[[float, float], float]] = {
    "sum": operator.add,
    "mean": operator.add,
    "max": max,
    "min": min,
    "prod": operator.mul,
}


def reduce(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    outer, axis, inner = (u.number(name) for name in ("outer", "axis", "inner"))
    name, found = str(u.op.ins["fn"]), Sweep()

    def slot(key: Any, source: int, target: int | None) -> Slot:
        def act() -> None:
            u.collect(key, u.word(source), FOLDS[name])
            if target is not None:  # a mean is divided where the sum comes out
                u.put(target, u.so_far(key) / (axis if name == "mean" else 1))

        return act

    for row, n, ins in rows(u, steps):
        for o in range(outer):
            for i in range(inner):
                for a in range(axis):
                    source = int(ins["src"]) + ((row * outer + o) * axis + a) * inner + i
                    target = int(ins["dst"]) + (row * outer + o) * inner + i
                    found.append(slot((row, n, o, i), source, target if a == axis - 1 else None))
    yield found


def _jumping(u: Unit, steps: Sequence[int], words: Callable[[Instruction, int], list[tuple[int, int]]]) -> Sweep:
    """`words` of a row, source and target: whole rows in a cycle, or parts of one, of a sample after the other."""
    found, width = Sweep(), u.arch.vector.width
    for ins in u.each:
        row_by_row = [[_moved(u, *places) for places in words(ins, row)] for row in sorted(steps)]
        for row in row_by_row:
            space = -len(found) % width
            if len(row) > space:
                found += [asleep] * space
            found += row
        found += [asleep] * (-len(found) % width)
    return found


def _moved(u: Unit, source: int, target: int) -> Slot:
    def act() -> None:
        u.jump("src", source)
        u.jump("dst", target)
        u.put(target, u.word(source))

    return act


def copy(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    def words(ins: Instruction, row: int) -> list[tuple[int, int]]:
        source = int(ins["src"]) + (0 if ins["src_held"] else row * int(ins["src_pitch"]))
        target = int(ins["dst"]) + row * int(ins["dst_pitch"])
        return [(source + f, target + f) for f in range(int(ins["words"]))]

    yield _jumping(u, steps, words)


def gather(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    index = u.constant("index").astype(int).ravel().tolist()

    def words(ins: Instruction, row: int) -> list[tuple[int, int]]:
        source = int(ins["src"]) + row * int(ins["src_pitch"])
        return [(source + at, int(ins["dst"]) + row * len(index) + f) for f, at in enumerate(index)]

    yield _jumping(u, steps, words)


def contract(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    groups, m, k, n = (u.number(name) for name in ("groups", "m", "k", "n"))
    found = Sweep()

    def slot(key: Any, a: int, b: int, target: int | None) -> Slot:
        def act() -> None:
            u.collect(key, u.word(a) * u.word(b))
            if target is not None:
                u.put(target, u.so_far(key))

        return act

    for row, sample, ins in rows(u, steps):
        a, b = (
            int(ins[name]) + (0 if ins[f"{name}_held"] else row * groups * k * size)
            for name, size in (("a", m), ("b", n))
        )
        for g, i, j, t in np.ndindex(groups, m, n, k):
            target = int(ins["dst"]) + ((row * groups + g) * m + i) * n + j
            left, right = a + (g * m + i) * k + t, b + (g * k + t) * n + j
            found.append(slot((row, sample, g, i, j), left, right, target if t == k - 1 else None))
    yield found


def decay(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """Of a complex rate: a product and an exponential, a product, a cosine and a sine, and a product for each half."""
    words, is_complex, found = u.number("words"), bool(u.op.ins["complex"]), Sweep()
    half = words // (1 + is_complex)

    def slot(row: int, n: int, ins: Instruction, f: int) -> Slot:
        def act() -> None:
            dt, rate = u.word(int(ins["src"]) + row), u.known((n, f), int(ins["rate"]) + f)
            target = int(ins["dst"]) + row * words + f
            size = exp(rate * dt)
            if is_complex:
                turn = u.known((n, half + f), int(ins["rate"]) + half + f) * dt
                u.put(target + half, size * sin(turn))
                size *= cos(turn)
            u.put(target, size)

        return act

    for row, n, ins in rows(u, steps):
        for f in range(half):
            found += chain(4 + 3 * u.function if is_complex else 1 + u.function, slot(row, n, ins, f))
    yield found


def average(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    found = Sweep()
    for ins in u.each:
        for f in range(int(ins["words"])):
            slot = _applied(u, lambda x: x / u.steps, int(ins["dst"]) + f, [int(ins["src"]) + f])
            found += chain(u.function, slot)
    yield found


def fill(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    words, value = u.number("words"), float(u.op.ins["value"])
    yield [_applied(u, lambda: value, int(ins["dst"]) + f, []) for ins in u.each for f in range(words)]


WITHIN: dict[str, Rule] = {
    "unary": unary,
    "binary": binary,
    "gate": gate,
    "select": select,
    "norm": norm,
    "softmax": softmax,
    "reduce": reduce,
    "copy": copy,
    "gather": gather,
    "contract": contract,
    "decay": decay,
    "average": average,
    "fill": fill,
}
