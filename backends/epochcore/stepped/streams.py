"""What the lanes of the vector unit do where streams are filtered, delayed, cut or summed up; see `lanes`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backends.epochcore.stepped.lanes import Rule, Slot, Sweep, Unit
from backends.epochcore.stepped.vector import rows
from isa import Instruction


def pool(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A register for every word of the row."""
    words, fn, found = u.number("words"), str(u.op.ins["fn"]), Sweep()
    first = u.steps - 1 - u.op.start if u.backward else -u.op.start  # the row of the sequence's first step

    def slot(row: int, n: int, ins: Instruction, f: int, final: bool) -> Slot:
        def act() -> None:
            x, key, at = u.word(int(ins["src"]) + row * words + f), ("row", n, f), int(ins["state"]) + f
            before = u.so_far(key) if u.has(key) else u.known(key, at)
            if fn in ("sum", "max"):
                x = before + x if fn == "sum" else max(before, x)
            elif fn == "first" and row != first:
                x = before
            u.keep(key, x)
            if final:
                u.put(at, x)

        return act

    for row, n, ins in rows(u, steps):
        found += [slot(row, n, ins, f, last and row == steps[-1]) for f in range(words)]
    yield found


def fir(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A product with every tap, added up."""
    channels, length, found = u.number("channels"), u.number("length"), Sweep()

    def slot(row: int, n: int, ins: Instruction, c: int, j: int, final: bool) -> Slot:
        def act() -> None:
            first = int(ins["state"]) + c * (length - 1)
            past = u.line((n, c), range(first, first + length - 1))  # the oldest first
            if j == 0:
                past.append(u.word(int(ins["src"]) + row * channels + c))
            tap = u.known((n, c, j), int(ins["taps"]) + c * length + j)
            u.collect(("y", row, n, c), tap * past[length - 1 - j])
            if j == length - 1:
                del past[0]
                u.put(int(ins["dst"]) + row * channels + c, u.so_far(("y", row, n, c)))
                for place, value in enumerate(past if final else ()):
                    u.put(first + place, value)

        return act

    for row, n, ins in rows(u, steps):
        final = last and row == steps[-1]
        found += [slot(row, n, ins, c, j, final) for c in range(channels) for j in range(length)]
    yield found


def delay(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    words, lag, found = u.number("words"), u.number("lag"), Sweep()

    def slot(row: int, n: int, ins: Instruction, f: int, final: bool) -> Slot:
        def act() -> None:
            places = range(int(ins["state"]) + f, int(ins["state"]) + lag * words, words)
            line = u.line((n, f), places)
            line.append(u.word(int(ins["src"]) + row * words + f))
            u.put(int(ins["dst"]) + row * words + f, line.pop(0))
            for at, value in zip(places, line if final else (), strict=final):
                u.put(at, value)

        return act

    for row, n, ins in rows(u, steps):
        found += [slot(row, n, ins, f, last and row == steps[-1]) for f in range(words)]
    yield found


def downsample(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A register for every word of a window; where one step is taken, the others pass by."""
    words, stride, kind, found = u.number("words"), u.number("stride"), str(u.op.ins["kind"]), Sweep()
    offset, start = u.number("offset"), u.op.start

    def taken(row: int, n: int, ins: Instruction, f: int) -> Slot:
        def act() -> None:
            x, place = u.word(int(ins["src"]) + row * words + f), start + row - offset
            if place >= 0 and place % stride == 0:
                before = max(0, -(-(start - offset) // stride))
                u.put(int(ins["dst"]) + (place // stride - before) * words + f, x)

        return act

    def joined(row: int, n: int, ins: Instruction, f: int, final: bool) -> Slot:
        def act() -> None:
            key, step = ("window", n, f), start + row
            x = u.word(int(ins["src"]) + row * words + f)
            if step % stride:
                before = u.so_far(key) if u.has(key) else u.known(key, int(ins["state"]) + f)
                x = max(before, x) if kind == "max" else before + x
            u.keep(key, x)
            if step % stride == stride - 1:
                result = step // stride - start // stride
                u.put(int(ins["dst"]) + result * words + f, x / stride if kind == "mean" else x)
            if final:
                u.put(int(ins["state"]) + f, x)

        return act

    for row, n, ins in rows(u, steps):
        final = last and row == steps[-1]
        for f in range(words):
            found.append(taken(row, n, ins, f) if kind == "take" else joined(row, n, ins, f, final))
    yield found


def unfold(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    """A lane for every place where a word goes: in its own window, and in those that hold it as their past. With the
    first steps goes what was carried, with those at the sequence's end what fills up the last window."""
    channels, span, past = (u.number(name) for name in ("channels", "span", "past"))
    count, reverse, wide = u.op.steps, bool(u.op.ins["reverse"]), span + past
    windows, ahead = -(-count // span), 0 if reverse else past
    places: dict[int, list[int]] = {}  # by step, from -past to the end and what follows it
    for w in range(windows):
        for i in range(wide):
            places.setdefault(w * span + i - ahead, []).append(w * channels * wide + i)
    inside = set(range(count))

    def put(n: int, ins: Instruction, c: int, at: int, value: Any) -> Slot:
        return lambda: u.put(int(ins["dst"]) + at + c * wide, value())

    def carried(n: int, ins: Instruction, c: int) -> list[float]:
        first = int(ins["state"]) + c * past
        return u.line((n, c), range(first, first + past))  # in the order of the steps, the oldest first

    def outside(step: int, n: int, ins: Instruction, c: int) -> float:
        """What was carried, or nothing."""
        place = step - count if reverse else -1 - step  # from the edge on
        return carried(n, ins, c)[past - 1 - place] if 0 <= place < past else 0.0

    def taken(row: int, n: int, ins: Instruction, c: int) -> Any:
        def value() -> float:
            return u.known((n, c, row), int(ins["src"]) + row * channels + c)

        return value

    def kept(row: int, n: int, ins: Instruction, c: int, final: bool) -> Slot:
        """The last place of a step's word: it is one of those that are carried."""

        def act() -> None:
            line = carried(n, ins, c)
            line.append(u.known((n, c, row), int(ins["src"]) + row * channels + c))
            for place, value in enumerate(line[-past:] if final and past else ()):
                u.put(int(ins["state"]) + c * past + place, value)

        return act

    found = Sweep()
    for row, n, ins in rows(u, steps):
        first = row == (count - 1 if reverse else 0)
        final = last and row == steps[-1]
        for c in range(channels):
            edge = [s for s in places if s not in inside and (s < 0 or reverse)] if first else []
            edge += [s for s in places if s >= count] if final and not reverse else []
            for step in edge:
                fixed = _fixed(outside, step, n, ins, c)
                found += [put(n, ins, c, at, fixed) for at in places[step]]
            own = [put(n, ins, c, at, taken(row, n, ins, c)) for at in places[row]]
            found += [*own[:-1], _both(own[-1], kept(row, n, ins, c, final))]
    yield found


def _fixed(fn: Any, *args: Any) -> Any:
    return lambda: fn(*args)


def _both(one: Slot, other: Slot) -> Slot:
    def act() -> None:
        one()
        other()

    return act


def fold(u: Unit, steps: Sequence[int], last: bool) -> Iterator[Sweep]:
    channels, span, found = u.number("channels"), u.number("span"), Sweep()

    def slot(row: int, ins: Instruction, c: int) -> Slot:
        source = int(ins["src"]) + (row // span * channels + c) * span + row % span
        return lambda: u.put(int(ins["dst"]) + row * channels + c, u.word(source))

    for row, _, ins in rows(u, steps):
        found += [slot(row, ins, c) for c in range(channels)]
    yield found


STREAMS: dict[str, Rule] = {
    "pool": pool,
    "fir": fir,
    "delay": delay,
    "downsample": downsample,
    "unfold": unfold,
    "fold": fold,
}
