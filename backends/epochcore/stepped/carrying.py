"""What the lanes of the vector unit do where something is carried from step to step, word by word; see `lanes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from backends.epochcore.stepped.lanes import Rule, Slot, Sweep, Unit, chain, idle
from isa import Instruction

Step = Callable[[int, int, Instruction, bool], Sweep]


def _step_by_step(u: Unit, steps: Sequence[int], last: bool, step: Step) -> Iterator[Sweep]:
    """A sweep for each step, over all samples: the next one needs what it leaves."""
    for row in steps:
        final = last and row == steps[-1]
        yield [slot for n, ins in enumerate(u.each) for slot in step(row, n, ins, final)]


def _state(u: Unit, n: int, ins: Instruction, f: int) -> float:
    """A state: what the step before left in its register, or the word that is carried."""
    return u.there(("x", n, f)) if u.has(("x", n, f)) else u.known(("x", n, f), int(ins["state"]) + f)


def _left(u: Unit, n: int, ins: Instruction, f: int, value: float, final: bool) -> None:
    u.keep(("x", n, f), value)
    if final:
        u.put(int(ins["state"]) + f, value)


def scan(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A multiply-add a word; two where complex, as each half needs the other."""
    words, is_complex, before = u.number("words"), bool(u.op.ins["complex"]), bool(u.op.ins["before"])
    half, held = words // (1 + is_complex), bool(u.op.ins["a_held"])

    def step(row: int, n: int, ins: Instruction, final: bool) -> Sweep:
        def decay(f: int) -> float:
            return u.known((n, f), int(ins["a"]) + f) if held else u.word(int(ins["a"]) + row * words + f)

        def own(f: int) -> None:
            x, v = _state(u, n, ins, f), u.word(int(ins["src"]) + row * words + f)
            y = decay(f) * x + v
            u.put(int(ins["dst"]) + row * words + f, x if before else y)
            _left(u, n, ins, f, y, final)

        def pair(f: int) -> None:
            x = complex(*(_state(u, n, ins, at) for at in (f, half + f)))
            v = complex(*(u.word(int(ins["src"]) + row * words + at) for at in (f, half + f)))
            y = complex(decay(f), decay(half + f)) * x + v
            for at, old, new in ((f, x.real, y.real), (half + f, x.imag, y.imag)):
                u.put(int(ins["dst"]) + row * words + at, old if before else new)
                _left(u, n, ins, at, new, final)

        return [slot for f in range(half) for slot in (chain(4, _at(pair, f)) if is_complex else [_at(own, f)])]

    yield from _step_by_step(u, steps, last, step)


def _at(fn: Callable[[int], None], f: int) -> Slot:
    return lambda: fn(f)


def carry(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """As a scan over the segments that have steps; those behind them begin with what these leave."""
    words, number, span = u.number("words"), u.number("segments"), u.number("span")
    is_complex, count = bool(u.op.ins["complex"]), len(steps)
    half, used = words // (1 + is_complex), max(1, -(-count // span))

    def segment(n: int, ins: Instruction, g: int, f: int) -> Slot:
        places = [f, half + f] if is_complex else [f]

        def act() -> None:
            x = complex(*(_state(u, n, ins, at) for at in places))
            for s in range(g, number if g == used - 1 else g + 1):
                for part, at in ((x.real, f), (x.imag, half + f))[: len(places)]:
                    u.put(int(ins["dst"]) + (at // half * number + s) * half + f, part)
            if g == used - 1:
                return
            left = [u.word(int(ins["src"]) + (at // half * number + g) * half + f) for at in places]
            decay = complex(*(u.known((n, at), int(ins["a"]) + at) for at in places))
            y = decay * x + complex(*left)
            for part, at in ((y.real, f), (y.imag, half + f))[: len(places)]:
                u.keep(("x", n, at), part)

        return act

    for g in range(used):
        yield [
            slot
            for n, ins in enumerate(u.each)
            for f in range(half)
            for slot in chain(4 if is_complex else 1, segment(n, ins, g, f))
        ]


def spike(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A comparison and a multiply-add, with a product of its own each."""
    words = u.number("words")
    or_equal, immediate, before = (bool(u.op.ins[name]) for name in ("or_equal", "immediate", "before"))

    def step(row: int, n: int, ins: Instruction, final: bool) -> Sweep:
        def act(f: int) -> None:
            a, theta, fired_a, gain, offset = (u.known((n, k, f), int(ins["rows"]) + k * words + f) for k in range(5))
            x, v = _state(u, n, ins, f), u.word(int(ins["src"]) + row * words + f)
            tested = a * x + v if immediate else x
            fires = tested > theta or (or_equal and tested == theta)
            if immediate:
                reached, kept = tested, fired_a * tested + offset if fires else tested
            else:
                reached = kept = fired_a * x + gain * v + offset if fires else a * x + v
            u.put(int(ins["dst"]) + row * words + f, x if before else reached)
            _left(u, n, ins, f, kept, final)

        return [slot for f in range(words) for slot in (idle, _at(act, f))]

    yield from _step_by_step(u, steps, last, step)


WHOLE: dict[str, Callable[[float], float]] = {
    "nearest": lambda x: float(np.rint(x)),
    "floor": lambda x: float(np.floor(x)),
    "ceil": lambda x: float(np.ceil(x)),
}


def rounded(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A multiply-add a state, two where complex; where it rounds a pass to the code and one back, to which what is
    added next comes."""
    ins_, words = u.op.ins, u.number("words")
    is_complex, before, reached_ = (bool(ins_[name]) for name in ("complex", "before", "reached"))
    half, whole = words // (1 + is_complex), WHOLE[str(ins_["rounding"])]
    places = [p for p in ("state", "product", "cross", "turned", "sum") if ins_[f"round_{p}"]]

    def step(row: int, n: int, ins: Instruction, final: bool) -> Sweep:
        def held(k: int, f: int) -> float:
            return u.known((n, k, f), int(ins["rows"]) + k * words + f)

        def grid(place: str, value: float, f: int) -> float:
            if place not in places:
                return value
            first = 1 + 5 * places.index(place)
            scale, shift, zero, low, high = (held(first + k, f) for k in range(5))
            code = min(max(whole(value / scale + shift), low), high)
            return scale * (code - zero)

        def act(f: int) -> None:
            own = [f, half + f] if is_complex else [f]
            old = [_state(u, n, ins, at) for at in own]
            x = [grid("state", value, at) for value, at in zip(old, own, strict=True)]
            products = [grid("product", held(0, f) * value, at) for value, at in zip(x, own, strict=True)]
            if is_complex:
                re, im = (grid("cross", held(0, half + f) * x[1 - k], own[k]) for k in (0, 1))
                products = [products[0] - re, products[1] + im]
            products = [grid("turned", value, at) for value, at in zip(products, own, strict=True)]
            for value, at, kept in zip(products, own, old, strict=True):
                reached = value + u.word(int(ins["src"]) + row * words + at)
                following = grid("sum", reached, at)
                result = kept if before else reached if reached_ else following
                u.put(int(ins["dst"]) + row * words + at, result)
                _left(u, n, ins, at, following, final)

        each = (1 + is_complex) * (1 + is_complex + 2 * len(places))
        return [slot for f in range(half) for slot in chain(each, _at(act, f))]

    yield from _step_by_step(u, steps, last, step)


def rounded_sums(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A multiply-add a term, and of each number a pass to the code and one back, one number after the other."""
    ins_, words, count = u.op.ins, u.number("words"), u.number("terms")
    before, reached_, whole = bool(ins_["before"]), bool(ins_["reached"]), WHOLE[str(ins_["rounding"])]

    def step(row: int, n: int, ins: Instruction, final: bool) -> Sweep:
        first = int(ins["rows"])
        of = [int(number) for number in u.memory.spad[first + 5 * words :][:count]]
        old: dict[int, float] = {}
        now: dict[int, float] = {}

        def held(at: int) -> float:
            return u.known((n, at), first + at)

        def was(f: int) -> float:
            if f not in old:
                old[f] = _state(u, n, ins, f)
            return old[f]

        def act(f: int) -> None:
            kept, reached = was(f), 0.0
            for t in [t for t in range(count) if of[t] == f]:
                _, source, weight = (held(5 * words + k * count + t) for k in range(3))
                gate = held(5 * words + 3 * count + t) if ins["gated"] else -1.0
                number, lets = (was(int(g)) if g < words else now[int(g) - words] for g in (source, max(gate, 0.0)))
                reached += weight * number if gate < 0 or lets else 0.0
            reached += u.word(int(ins["src"]) + row * words + f)
            scale, shift, zero, low, high = (held(k * words + f) for k in range(5))
            code = min(max(whole(reached / scale + shift), low), high) if scale else 0.0
            now[f] = scale * (code - zero) if scale else reached
            u.put(int(ins["dst"]) + row * words + f, kept if before else reached if reached_ else now[f])
            _left(u, n, ins, f, now[f], final)

        return [slot for f in range(words) for slot in chain(of.count(f) + 2, _at(act, f))]

    yield from _step_by_step(u, steps, last, step)


CARRYING: dict[str, Rule] = {
    "scan": scan,
    "carry": carry,
    "spike": spike,
    "rounded": rounded,
    "rounded.sums": rounded_sums,
}
