"""The sequencer: a program's instructions in the order in which they enter the engines' queues, once for each time
that they are run. It costs no time, and the queues have room without limit (both ours).

It knows what goes together in the array: which preloads a pass takes over, and whose registers a preload needs. These
are bits that are full or empty in hardware, not tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rates import Whole, lower_rate, totals
from backends.epochcore.program.rounds import rounds_of
from backends.epochcore.program.tokens import engine_of
from isa import Instruction, Program
from isa.epochcore_fields import ENGINES

POPS, PUSHES = (tuple((engine, f"{what}.{engine}") for engine in ENGINES) for what in ("pop", "push"))
Ints = NDArray[np.int64]
Spans = Mapping[str, tuple[int, int]]
Stream = Mapping[str, Any]  # as the program's data tell of it
STREAMS = ("load", "store")
TELLING = frozenset({"rate", *STREAMS})
MARKS = frozenset({"chunks", "halt"})


@dataclass(slots=True)  # not frozen, which takes several times as long to make
class Op:
    """One run of one instruction: the place of it in the code, and numbers of other ops that it depends on.

    `start` and `steps` are the span of its steps in the sequence. It begins when all of `finished` are finished and the
    first step of `passed` has left the array. `held` is the preload that the array works with. It is for so many
    `samples` at once, from `sample` on.
    """

    number: int
    index: int
    ins: Instruction
    engine: str
    sample: int
    start: int
    steps: int
    spans: Spans
    pops: tuple[str, ...]
    pushes: tuple[str, ...]
    held: Instruction | None
    finished: tuple[int, ...] = ()
    passed: int | None = None
    samples: int = 1


@dataclass
class _Registers:
    """Shadow registers of one kind: who filled them last, whether that is taken, and which pass took them."""

    filled: int | None = None
    taken: int | None = None

    def fill(self, number: int) -> int | None:
        """Returns the pass that must have taken over what was there."""
        self.filled = number
        return self.taken

    def take(self, number: int) -> tuple[int, ...]:
        """Returns the preload that must be finished."""
        if self.filled is None:
            return ()
        found, self.filled, self.taken = self.filled, None, number
        return (found,)


class Ahead:
    """What can be known of a loop's chunks before they run: how many of those that follow the one that has been
    `entered` last are `alike`; of these, `skip` are left out."""

    def __init__(self, program: Program, steps: int) -> None:
        self.entered = self.loop = self.alike = self.skip = 0
        self.number = 0  # of the chunk in its loop
        self._program, self._steps, self._total = program, steps, totals(program, steps)
        self._kinds: dict[int, Ints] = {}  # by loop; by chunk
        self._stops: dict[int, Ints] = {}  # by loop; by chunk where those that are alike end

    def enters(self, loop: int, chunks: Sequence[tuple[int, int]], number: int) -> bool:
        """Whether a chunk of the loop at `loop` is to run."""
        if self.skip:
            self.skip -= 1
            return False
        kinds = self._kinds.get(loop)
        if kinds is None:
            section = self._program.sections[0]
            body = section.code[loop + 1 : section.labels[str(section.code[loop]["end"])]]
            # all others take their steps, and what they cost, from registers that these set
            each = [(ins, self._kept(ins)) for ins in body if ins.mnemonic in TELLING]
            telling = [(ins, stays) for ins, stays in each if ins.mnemonic == "rate" or stays is not None]
            kinds = self._kinds[loop] = _kinds(telling, chunks)
            last = np.append((kinds[1:] != kinds[:-1]).any(1), True)
            self._stops[loop] = _following(last)
        if self.loop == loop and self.alike and number == self.number + 1:
            alike = self.alike - 1
        else:
            alike = int(self._stops[loop][number]) - number
        self.entered, self.loop, self.number, self.alike = self.entered + 1, loop, number, alike
        return True

    @property
    def kind(self) -> tuple[int, ...]:
        """All that costs of the chunk depend on that has been entered last."""
        return tuple(self._kinds[self.loop][self.number].tolist())

    def _kept(self, ins: Instruction) -> Stays | None:
        return _stays(self._program, ins, self._total) if ins.mnemonic in STREAMS else None


def _kinds(telling: Sequence[tuple[Instruction, Stays | None]], chunks: Sequence[tuple[int, int]]) -> Ints:
    """By chunk its steps, those of every register, and of transfers those that stay on the chip, and whether the first
    one does."""
    first, count = np.array(chunks, np.int64).reshape(-1, 2).T
    spans, kinds = {"n0": (first, count)}, [count]
    for ins, stays in telling:
        if stays is None:
            spans[str(ins["dst"])] = span = lower(ins, spans[str(ins["src"])])
            kinds.append(span[1])
        else:
            start, steps = spans[stays.register]
            kinds += stays.of(start, steps), stays.of(start, 1)
    return np.stack(kinds, 1)


def _following(chosen: NDArray[np.bool_]) -> Ints:
    """By place the first one from there on that is chosen; the last one is."""
    places = np.flatnonzero(chosen)
    return places[np.searchsorted(places, np.arange(len(chosen)))]


class Stays(NamedTuple):
    """Which steps of a transfer stay on the chip: those from `first` to `stop`, counted from the end where `mirror` is
    the number of all of them, and from the beginning where it is None; and the `register` of the transfer's steps."""

    register: str
    first: int
    stop: int
    mirror: int | None

    def of(self, start: Whole, steps: Whole) -> Whole:
        """Of so many steps from `start` on those that do."""
        if self.mirror is not None:
            start = self.mirror - start - steps
        low, high = (np.maximum(np.minimum(step, self.stop), self.first) for step in (start, start + steps))
        return high - low


def lower(rate: Instruction, span: tuple[Whole, Whole]) -> tuple[Whole, Whole]:
    """A span of steps at a lower rate."""
    begin, count = span
    low = lower_rate(rate, begin)
    return low, lower_rate(rate, begin + count) - low


def on_chip(program: Program, ins: Instruction, start: int, steps: int, total: Mapping[str, int]) -> int:
    """Of a transfer of `steps` steps from `start` on those that do not leave the chip: of a stream between two loops
    that are written last."""
    stays = _stays(program, ins, total)
    return 0 if stays is None else int(stays.of(start, steps))


def _stays(program: Program, transfer: Instruction, total: Mapping[str, int]) -> Stays | None:
    """The steps of a transfer that stay, if its stream has any."""
    stream = kept_of(program, transfer)
    if stream is None:
        return None
    register, kept = str(transfer["steps"]), int(stream["on_chip"])
    whole = total[register]
    first = whole - kept if stream.get("from_end") else 0
    return Stays(register, first, first + kept, whole if transfer.operands.get("mirror") else None)


def kept_of(program: Program, transfer: Instruction) -> Stream | None:
    """The stream of a transfer, if steps of it stay on the chip."""
    if transfer["steps"] == "one":
        return None
    streams: Any = program.meta.get("streams", ())
    number = int(transfer["src" if transfer.mnemonic == "load" else "dst"])
    return streams[number] if number < len(streams) and streams[number].get("on_chip") else None


@dataclass(frozen=True)
class Piece:
    """Instructions `start` to `stop` - 1 as they are run once: straight code, or (in a `loop`) for a chunk; `spans` are
    the registers' steps at its beginning. For so many `samples`, from `sample` on (-1: outside the loop over them)."""

    sample: int
    samples: int
    start: int
    stop: int
    spans: Spans
    loop: bool


def dispatch(program: Program, batch: int, steps: int, *, shadow: bool) -> Iterator[Op]:
    """Ops in the program's order, for `batch` samples of `steps` steps; `shadow` as in the architecture."""
    section = program.sections[0]
    static = [_static(ins) for ins in section.code]
    parameters, states, array = _Registers(), _Registers(), Array()
    last_compute: int | None = None
    number = 0
    for piece in pieces(program, batch, steps):
        for index, spans in walk(program, piece):
            ins = section.code[index]
            engine, register, pops, pushes = static[index]
            if engine is None:
                continue
            finished: tuple[int, ...] = ()
            passed: int | None = None
            name = ins.mnemonic
            if name == "preload":
                passed = parameters.fill(number)
            elif name == "state.load":
                passed = states.fill(number)
            elif name in PASSES:
                finished = (*parameters.take(number), *states.take(number))
            if not shadow and name in ("preload", "state.load"):
                finished, passed = () if last_compute is None else (last_compute,), None
            held, (start, count) = array.meets(ins, spans[register])
            last_compute = number if engine == "compute" else last_compute
            own = number, index, ins, engine, piece.sample, start, count, spans, pops, pushes, held, finished, passed
            yield Op(*own, piece.samples)
            number += 1


@dataclass
class Array:
    """What the array holds: the preload that it works with, the one that comes after it, and the steps of the last
    pass."""

    active: Instruction | None = None
    coming: Instruction | None = None
    taken: tuple[int, int] = (0, 0)

    def meets(self, ins: Instruction, span: tuple[int, int]) -> tuple[Instruction | None, tuple[int, int]]:
        """What an instruction of so many steps finds held, and the steps that it has: states go out behind the last
        step of a pass."""
        name = ins.mnemonic
        if name == "preload":
            self.coming = ins
            return ins, span
        if name == "state.load":
            return self.coming or self.active, span
        if name in PASSES:
            if self.coming is not None:
                self.active, self.coming = self.coming, None
            self.taken = span
        return self.active or self.coming, self.taken if name == "state.store" else span


def _static(ins: Instruction) -> tuple[str | None, str, tuple[str, ...], tuple[str, ...]]:
    """Engine, register of its steps, tokens taken and given."""
    engine, operands = engine_of(ins), ins.operands
    if engine is None:
        return None, "one", (), ()
    pops, pushes = (tuple(e for e, flag in flags if operands[flag]) for flags in (POPS, PUSHES))
    return engine, str(operands.get("steps", "one")), pops, pushes


def even(steps: int, limit: int, multiple: int = 1) -> int:
    """Steps of a chunk: as few chunks as `limit` allows, all about the same, of whole multiples."""
    each = -(-steps // -(-steps // limit)) if steps else limit
    return -(-each // multiple) * multiple


def sample_body(program: Program) -> tuple[int, int]:
    """The code between `samples` and its label; all of it where there is none."""
    section = program.sections[0]
    for index, ins in enumerate(section.code):
        if ins.mnemonic == "samples":
            return index + 1, section.labels[str(ins["end"])]
    return 0, len(section.code)


def pieces(program: Program, batch: int, steps: int, ahead: Ahead | None = None) -> Iterator[Piece]:
    """What is run one after the other, for `batch` samples of `steps` steps. Chunks are left out as `ahead` says."""
    code, (first, last) = program.sections[0].code, sample_body(program)
    each = rounds_of(program).together
    rounds = [(sample, min(each, batch - sample), first, last) for sample in range(0, batch, each)]
    for sample, samples, start, end in [(-1, 1, 0, first), *rounds, (batch, 1, last, len(code))]:
        for low, stop, spans, loop in _cut(program, steps, start, end, ahead):
            yield Piece(sample, samples, low, stop, spans, loop)


def _cut(
    program: Program, steps: int, start: int, end: int, ahead: Ahead | None
) -> Iterator[tuple[int, int, Spans, bool]]:
    section = program.sections[0]
    spans: Spans = {"one": (0, 1), **{f"n{i}": (0, 0) for i in range(8)}}
    index = start
    marks = [place for place in range(start, end) if section.code[place].mnemonic in MARKS]
    for place in marks:
        ins = section.code[place]
        if place < index:
            continue
        if index < place:
            yield index, place, spans, False
        if ins.mnemonic == "halt":
            return
        stop, limit = section.labels[str(ins["end"])], int(ins["limit"])
        limit = even(steps, limit, int(ins["multiple"]))
        starts = range(0, steps, limit)
        chunks = [(n, min(limit, steps - n)) for n in (reversed(starts) if ins["backward"] else starts)]
        rates = [inner for inner in section.code[place + 1 : stop] if inner.mnemonic == "rate"]
        for number, chunk in enumerate(chunks):
            if ahead is None or ahead.enters(place, chunks, number):
                spans = {**spans, "n0": chunk}
                yield place + 1, stop, spans, True
                for rate in rates:
                    spans = {**spans, str(rate["dst"]): lower(rate, spans[str(rate["src"])])}
        index = stop
    if index < end:
        yield index, end, spans, False


def walk(program: Program, piece: Piece) -> Iterator[tuple[int, Spans]]:
    """Places of a piece's instructions in the code, and the registers' spans there."""
    code, spans = program.sections[0].code, piece.spans
    for place in range(piece.start, piece.stop):
        ins = code[place]
        if ins.mnemonic == "rate" and piece.loop:
            spans = {**spans, str(ins["dst"]): lower(ins, spans[str(ins["src"])])}
        elif ins.mnemonic != "samples":
            yield place, spans
