"""What the array's instructions cost.

A pass over the array of R x C elements with parameters in place takes (L - 1) I + F + O - 1 cycles for L steps:

* I, cycles from a step to the next: at least those in which the ports move a step's words in (G) and out (O), and,
  where states stay in place, s g for s states an element (of g cycles each: 2 where complex numbers are ganged) and
  d + g - 1 for a pipeline of depth d, as a state must be there when its next step begins.
* F, cycles until the first step has left the array: G - 1 + R + C - 2 + d where weights stay in place (SCALE-Sim's
  fold less the R cycles of the preload), G - 1 + R s + d - 1 where states do: columns are independent, and a step goes
  down a column of R rows.
* Where results stay in place, ceil(L / R) folds of (K - 1) G + G - 1 + R + C - 1 cycles one after the other (the
  output-stationary folds of SCALE-Sim), G cycles for the inputs of a term, or for its weights where these take longer;
  R O + C - 1 where shifting the results of the one before out of its columns takes longer; the R O cycles of the last
  fold's are added, and d - 1.

Words of channels in groups of rows of a column move down it together: that changes no formula, but how many states an
element has.

Where the parameters are there several times (`segments`), L are the steps of the longest segment, and G and O count the
words of all of them. Samples of a round are as many segments of states, each of L steps; to weights they are steps.

The next pass may follow L I cycles later, or as much more as its first step needs to come nowhere before one more step
of the pass before would have: both move evenly, so that it is enough to compare them at the edges of the array and at
the ports through which their words leave it (`Wave.behind`).
Several tiles of weights are as many passes, all of them a period apart: the longer of L I and of the time until the
next weights are in, G cycles after a step has begun to take over the ones before (or when it has left the array, where
engines wait for each other's tokens). Without shadow registers all of a pass and of a preload follow each other.
The formulas are ours where no source is named; `stepped` checks them element by element.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from backends.epochcore.arch import Arch
from backends.epochcore.clock.cost import Context, Cost, Rule, Turns
from backends.epochcore.clock.gemm import ceil_div, output_fold, weight_pass
from backends.epochcore.clock.wave import Shift, Wave
from backends.epochcore.program.stretches import copies, longest
from backends.epochcore.program.tiles import tiles
from isa import Instruction

# Multiply-accumulates of a step of one state: real a x, b u, c x; complex with a real drive (4 + 2 + 2).
STATE_MACS = {False: 3, True: 8}
DRIVEN_MACS = {False: 1, True: 4}


@dataclass(frozen=True)
class Layout:
    """How the states of a preload lie in the array: `rows` and `cols` of cells, `stack` states in each, `gang` elements
    high. `deep` of them belong to one channel. The channel `cols` further lies below it, in the next of the `groups` of
    `high` rows of cells; where all have one, it follows in the cells of the first group."""

    rows: int
    cols: int
    stack: int
    gang: int
    deep: int
    groups: int = 1
    high: int = 1

    @property
    def lanes(self) -> int:
        """Channels of a cell, which are stepped one after the other."""
        return self.stack // self.deep

    @property
    def used(self) -> int:
        """Rows of cells in use."""
        return self.groups * self.high

    def below(self, wide: int) -> int:
        """Channels, of so many, that lie below the first one of their column."""
        block = self.cols * self.groups
        return wide - sum(min(self.cols, wide - first) for first in range(0, wide, block))

    def place(self, row: int, col: int) -> tuple[int, int, int]:
        """Row and column of the cell of a state, and its number there."""
        lane, group = divmod(col // self.cols, self.groups)
        return group * self.high + row // self.deep, col % self.cols, lane * self.deep + row % self.deep

    def group(self, row: int) -> tuple[int, int]:
        """The group of a row of cells, and the row's number there; rows below the last group are counted on in it."""
        group = min(row // self.high, self.groups - 1)
        return group, row - group * self.high

    def state(self, row: int, col: int, number: int) -> tuple[int, int]:
        """Row and column of the state that a cell has at a number."""
        (group, below), (lane, state) = self.group(row), divmod(number, self.deep)
        return below * self.deep + state, col + (lane * self.groups + group) * self.cols

    def in_a_row(self, wide: int) -> int:
        """Most states that a row of cells has of `wide` columns of states."""
        lanes = (min(self.cols, max(0, wide - lane * self.groups * self.cols)) for lane in range(self.lanes))
        return self.deep * sum(lanes)


def layout_of(held: Instruction, arch: Arch, samples: int) -> Layout:
    """The layout for what `held` preloads, with its segments and so many samples beside each other."""
    is_complex, groups, own = bool(held["complex"]), int(held["groups"]), int(held["rows"])
    rows, cols = arch.places(is_complex)
    deep = ceil_div(own, rows // groups)
    stack = arch.stack(is_complex, own, int(held["cols"]) * copies(held) * samples, groups)
    return Layout(rows, cols, stack, arch.gang if is_complex else 1, deep, groups, ceil_div(own, deep))


def _own(at: Context) -> tuple[int, int, bool]:
    """Rows and columns of one segment."""
    assert at.preload is not None
    return int(at.preload["rows"]), int(at.preload["cols"]), bool(at.preload["complex"])


def _held(at: Context) -> tuple[int, int, bool]:
    """Rows and columns of all segments and samples."""
    rows, cols, is_complex = _own(at)
    assert at.preload is not None
    return rows, cols * copies(at.preload) * at.samples, is_complex


def through_ports(number: int, arch: Arch, words: int, port: int) -> int:
    """Cycles in which a step's `words`, of each of a `number` of segments or samples, go through ports of `port` words.

    They lie far apart in the scratchpad: they are taken to begin in one bank, all of them.
    """
    banks = arch.memory.banks
    waiting = ceil_div(number * ceil_div(words, banks), arch.memory.bank_ports) if banks and number > 1 else 1
    return max(ceil_div(number * words, port), waiting)


def _words_of(held: Instruction) -> int:
    """Parameters of a weight or a state, in words."""
    return 1 if held["mode"] == "mac" else (3 if held["mode"] in ("fri", "tri") else 1) * (2 if held["complex"] else 1)


def _preload(ins: Instruction, at: Context) -> Cost:
    """Parameters are shifted down the columns, a row of the array after the other."""
    if ins["mode"] in ("sel", "mac.os"):
        return Cost("preload", 1, 0, {})
    array, each = at.arch.array, _words_of(ins)
    layout = layout_of(ins, at.arch, at.samples) if ins["mode"] != "mac" else Layout(array.rows, array.cols, 1, 1, 1)
    # states lie in the rows next to the edge: no more rows than are in use are shifted in
    rows = array.rows if ins["mode"] == "mac" else layout.used
    shift = Shift(rows, layout.gang, ceil_div(each * layout.stack * layout.cols, array.port_words_in))
    events = {"parameter_words": int(ins["rows"]) * int(ins["cols"]) * each}
    return Cost("preload", rows * shift.interval, 0, events, shift=shift)


def _state_load(ins: Instruction, at: Context) -> Cost:
    """States come as parameters do, a row of the array after the other."""
    assert at.preload is not None
    words, layout = int(ins["words"]) * at.samples, layout_of(at.preload, at.arch, at.samples)
    _, cols, is_complex = _held(at)
    each = layout.in_a_row(cols) * (2 if is_complex else 1)
    shift = Shift(layout.used, layout.gang, ceil_div(each, at.arch.array.port_words_in))
    return Cost("preload", shift.rows * shift.interval, 0, {"scratchpad_words": words}, shift=shift)


def _state_store(ins: Instruction, at: Context) -> Cost:
    """Behind the last step, states are copied into registers of their own; when all are, they are shifted out."""
    assert at.preload is not None
    words, layout = int(ins["words"]) * at.samples, layout_of(at.preload, at.arch, at.samples)
    through = layout.rows * layout.stack * layout.gang
    cycles = through + ceil_div(words, at.arch.array.port_words_out)
    events = {"scratchpad_words": words}
    busy, out = layout.stack * layout.gang, through + at.arch.array.mac_depth - 2
    # it sends nothing through the ports of sums, but keeps the passes before and after it in order there
    wave = _wave(at.arch, 1, layout, out=out, over=out - busy)
    return Cost("compute", cycles, 0, events, busy, wave, holds=through, latency=through)


def _wave(
    arch: Arch, gather: int, layout: Layout | None, out: int, over: int, *, skewed: bool = False, drained: bool = False
) -> Wave:
    """Of states, or of weights. Sums come to an element with the product of the first state there."""
    array, gang, pace = arch.array, layout.gang if layout else 1, layout.stack if layout else 1
    trail = array.mac_depth + gang - 2
    return Wave(gather, array.rows, array.cols, pace, gang, skewed or layout is None, trail, out, over, drained)


def _mac(ins: Instruction, at: Context) -> Cost:
    assert at.preload is not None
    if not at.steps:
        return Cost("compute", 0, 0, {})
    cost = (_results_in_place if at.preload["mode"] == "mac.os" else _weights_in_place)(ins, at)
    return cost if tiles(at.preload) == 1 else _in_turn(cost, at)


def _in_turn(one: Cost, at: Context) -> Cost:
    """As many passes as the preload has tiles, each of them as `one`."""
    assert at.preload is not None and one.busy is not None and one.wave is not None
    more, weights = tiles(at.preload) - 1, _preload(at.preload, at)
    after, gap = one.cycles - one.busy + weights.cycles, 0
    if at.arch.array.shadow:
        # weights may follow those that a pass takes over
        free = one.wave.leads(weights.shift) if at.arch.array.handover_steps else one.holds
        after, gap = 0, free + weights.cycles
    turns = Turns(more + 1, one, after, gap)
    late, events = turns.late, {name: count * (more + 1) for name, count in one.events.items()}
    for name, count in {**weights.events, "preload_cycles": weights.cycles}.items():
        events[name] = events.get(name, 0) + more * count
    return replace(
        one,
        cycles=one.cycles + late,
        macs=one.macs * (more + 1),
        events=events,
        busy=one.busy + late,
        holds=one.holds + late,
        shift=weights.shift,
        late=late,
        turns=turns,
    )


def _weights_in_place(ins: Instruction, at: Context) -> Cost:
    assert at.preload is not None
    array, held = at.arch.array, at.preload
    rows, cols, steps = int(held["rows"]), int(held["cols"]), longest(held, at.steps) * at.samples
    gather = through_ports(copies(held), at.arch, rows, array.port_words_in)
    scatter = through_ports(copies(held), at.arch, cols, array.port_words_out)
    moved = at.rows * (rows + cols * (2 if ins["accumulate"] else 1))
    macs = at.rows * rows * cols
    first = gather - 1 + weight_pass(1, array.rows, array.cols) - 1 + array.mac_depth
    events = {"macs": macs, "scratchpad_words": moved}
    interval = max(gather, scatter)
    wave = _wave(at.arch, gather, None, first - 1, first - 1 + scatter - interval)
    cost = _pass(steps, interval, first, scatter, macs, events, wave)
    return replace(cost, apart=copies(held) > 1)


def _results_in_place(ins: Instruction, at: Context) -> Cost:
    terms, cols, _ = _own(at)
    array, steps = at.arch.array, at.rows
    folds = ceil_div(steps, array.rows)
    gather = ceil_div(max(min(array.rows, steps), cols), array.port_words_in)
    out = array.rows * ceil_div(cols, array.port_words_out)
    fold = output_fold(1 + (terms - 1) * gather, array.rows, array.cols) + gather - 1
    cycles = (folds - 1) * max(fold, out + array.cols - 1) + fold + array.mac_depth - 1 + out
    macs = steps * terms * cols
    moved = steps * (terms + cols * (2 if ins["accumulate"] else 1))
    events = {"macs": macs, "scratchpad_words": moved, "parameter_words": folds * terms * cols}
    first = fold + array.mac_depth - 1
    wave = _wave(at.arch, gather, None, first, 0, drained=True)
    return Cost("compute", cycles, macs, events, cycles, wave, holds=cycles, apart=True)


def _fri(ins: Instruction, at: Context) -> Cost:
    rows, cols, is_complex = _own(at)
    macs = at.rows * rows * cols * STATE_MACS[is_complex]
    moved = at.rows * cols * (3 if ins["accumulate"] else 2)
    return _in_place(at, 1, 1, macs, moved)


def _driven(ins: Instruction, at: Context) -> Cost:
    rows, cols, is_complex = _own(at)
    parts, streamed = 2 if is_complex else 1, 2 if ins.mnemonic == "sel" else 1
    macs = at.rows * rows * cols * DRIVEN_MACS[is_complex]
    return _in_place(at, parts * streamed, parts, macs, at.rows * cols * parts * (streamed + 1))


def _in_place(at: Context, words_in: int, words_out: int, macs: int, moved: int) -> Cost:
    """A pass of states with so many words in and out a column and step."""
    assert at.preload is not None
    if not at.steps:
        return Cost("compute", 0, 0, {})
    array, layout, cols = at.arch.array, layout_of(at.preload, at.arch, at.samples), int(at.preload["cols"])
    number = copies(at.preload) * at.samples
    gather = through_ports(number, at.arch, cols * words_in, array.port_words_in)
    scatter = through_ports(number, at.arch, cols * words_out, array.port_words_out)
    own = max(layout.stack * layout.gang, array.mac_depth + layout.gang - 1)
    first = gather - 1 + layout.rows * layout.stack * layout.gang - 1 + array.mac_depth
    events = {"state_macs": macs, "scratchpad_words": moved}
    if layout.groups > 1:  # a word goes down to the rows of its channel, its sum from there on: half of a way each
        share = Fraction(layout.below(cols * number), cols * number)
        ways = Fraction(array.rows + layout.high * layout.gang, 2)
        events["column_words"] = int(at.rows * cols * words_in * ways * share)
    # passes that hand over step by step all go along the diagonal
    skew = (layout.cols - 1) * layout.gang if array.handover_steps else 0
    first += skew
    interval = max(own, gather, scatter)
    out, over = first - 1, first - 1 + scatter - interval
    wave = _wave(at.arch, gather, layout, out, over, skewed=bool(array.handover_steps))
    cost = _pass(longest(at.preload, at.steps), interval, first, scatter, macs, events, wave)
    return replace(cost, apart=copies(at.preload) > 1)


def _pass(
    steps: int,
    interval: int,
    first: int,
    scatter: int,
    macs: int,
    events: Mapping[str, int],
    wave: Wave,
) -> Cost:
    cycles = (steps - 1) * interval + first + scatter - 1
    busy = steps * interval
    return Cost("compute", cycles, macs, events, busy, wave, holds=first, latency=cycles - busy)


ARRAY: dict[str, Rule] = {
    "preload": _preload,
    "state.load": _state_load,
    "state.store": _state_store,
    "mac": _mac,
    "fri": _fri,
    "fri.x": _driven,
    "tri": _fri,
    "tri.x": _driven,
    "sel": _driven,
}
