"""What instructions touch and cost, reckoned for many that are alike at once: as for one after the other."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.epochcore.clock.frames import SYNC, Frames, known_of
from backends.epochcore.clock.pricing import Prices
from backends.epochcore.program.accesses import Held, accesses
from backends.epochcore.program.columns import Columns
from backends.epochcore.program.dispatch import Stays, lower, pieces
from backends.epochcore.program.parameters import param_words
from backends.epochcore.program.passes import PASSES
from backends.epochcore.program.rates import most_rows
from backends.epochcore.program.tiles import parameters_of, streamed
from backends.epochcore.program.touches import PARAMETERS, STREAMS, Loops, touches
from isa import Instruction, Program, instruction
from isa.epochcore import EPOCHCORE
from tests.backends.epochcore.small_programs import archs, programs
from tests.examples import examples

Row = tuple[int, int, int, bool]
Spans = list[tuple[int, int]]
spans_of_steps = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)))


def one_by_one(program: Program, steps: int) -> Counter[Row]:
    """By instruction what is touched: from where to where, and whether that is written. Streams and the scratchpad,
    and of parameters where they begin."""
    found, code, labels = Counter[Row](), program.sections[0].code, program.sections[0].labels
    limit, stop, rates, preload = 1, -1, dict[str, Instruction](), None
    for index, ins in enumerate(code):
        name = ins.mnemonic
        limit, stop = (1, -1) if index == stop else (limit, stop)
        if name == "chunks":
            limit, stop = max(1, min(int(ins["limit"]), steps)), labels[str(ins["end"])]
        elif name == "rate":
            rates[str(ins["dst"])] = ins
        elif name == "preload":
            preload = ins
            found.update((index, PARAMETERS + at, -1, False) for at in parameters_of(ins))
        elif name in PASSES:
            found.update((index, PARAMETERS + at, -1, False) for at in streamed(preload))
        elif name == "fetch":
            found[index, PARAMETERS + int(ins["dst"]), -1, True] += 1
        elif name in ("load", "store"):
            number = STREAMS + int(ins["src" if name == "load" else "dst"])
            found[index, number, number + 1, name == "store"] += 1
        for words in accesses(ins, Held.of(preload)):
            rows = most_rows(words.register or "one", limit, rates)
            found[index, words.start, words.start + (rows - 1) * words.pitch + words.words, words.written] += 1
    return found


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(1, 40))
def test_what_many_touch_is_what_each_of_them_touches(data: st.DataObject, steps: int) -> None:
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    sizes = {name: param_words(array, arch.memory.word_bits) for name, array in program.data.items()}
    found = touches(
        Columns.of(program.sections[0].code),
        Loops.of(program.sections[0], steps),
        lambda names: np.array([sizes[n] for n in names]),
    )
    parameter = (found.start >= PARAMETERS) & (found.start < STREAMS)
    stop = np.where(parameter, -1, found.stop)
    rows = zip(*(v.tolist() for v in (found.instruction, found.start, stop, found.written > 0)), strict=True)
    assert Counter(rows) == one_by_one(program, steps)
    assert (np.diff(found.instruction) >= 0).all()


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_costs_alike_is_told_alike_for_many_and_for_one(data: st.DataObject) -> None:
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    code = program.sections[0].code
    known = known_of(Columns.of(code), Prices(program, arch, 9))
    alone = Prices(program, arch, 9)
    pairs = {(int(known.shape[n]), alone.shape(ins)) for n, ins in enumerate(code) if known.way[n] < SYNC}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


@given(st.integers(1, 9), st.integers(0, 12), st.booleans(), spans_of_steps)
def test_chunks_at_a_lower_rate_are_those_of_each(stride: int, offset: int, windows: bool, spans: Spans) -> None:
    rate = instruction(EPOCHCORE, "rate", dst="n1", src="n0", stride=stride, offset=offset, windows=windows)
    first, count = np.array(spans, np.int64).reshape(-1, 2).T
    assert list(zip(*(values.tolist() for values in lower(rate, (first, count))), strict=True)) == [
        lower(rate, span) for span in spans
    ]


@given(st.tuples(st.integers(0, 40), st.integers(0, 40)), st.none() | st.integers(60, 80), spans_of_steps)
def test_steps_that_stay_on_the_chip_are_counted(bounds: tuple[int, int], mirror: int | None, spans: Spans) -> None:
    low, high = sorted(bounds)
    stays = Stays("n0", low, high, mirror)

    def counted(start: int, steps: int) -> int:
        places = range(start, start + steps) if mirror is None else range(mirror - start - steps, mirror - start)
        return sum(low <= place < high for place in places)

    first, count = np.array(spans, np.int64).reshape(-1, 2).T
    assert stays.of(first, count).tolist() == [counted(*span) for span in spans]


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.integers(1, 40), st.booleans())
def test_pieces_with_a_frame_in_common_have_the_one_of_their_own(data: st.DataObject, steps: int, tokens: bool) -> None:
    arch = data.draw(archs())
    program = data.draw(programs(arch))
    code = program.sections[0].code
    every = known_of(Columns.of(code), Prices(program, arch, steps))
    frames = Frames(every, code, tokens=tokens)
    for piece in pieces(program, 1, steps):
        found, own = frames.of(piece), Frames(every, code, tokens=tokens).of(piece)
        assert repr(found) == repr(own)
