"""What an instruction costs: engine, cycles, events. Functions of the instruction and of run-time registers alone.

Array passes follow the closed forms for systolic arrays: with parameters in place, R x C elements and an interval
of II cycles between steps, L steps take (L - 1) II + R + C - 2 + depth cycles for `mac` (the rest of a fold in
`gemm.weight_stationary` is the R cycles of the preload), and (L - 1) II + R + depth - 1 where states
stay in place and columns are independent: one step a cycle down a column of R elements. II is 1, more where the
ports are narrower than what a step moves or complex numbers are ganged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.epochcore.arch import Arch
from backends.epochcore.gemm import ceil_div
from isa import Instruction

FUNCTIONS_OF_ONE_PASS = frozenset(
    {"identity", "neg", "abs", "sign", "relu", "square", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"}
)
# Multiply-accumulates of a step of one state: real a x, b u, c x; complex with a real drive (4 + 2 + 2).
STATE_MACS = {False: 3, True: 8}
DRIVEN_MACS = {False: 1, True: 4}


@dataclass(frozen=True)
class Cost:
    """`engine` is busy for `cycles`; `events` counts what energy is charged for (see `energy`), `macs` useful ones.

    `latency` is what of the cycles is filling and draining: a next instruction could overlap it (see `handover`).
    """

    engine: str
    cycles: int
    macs: int
    events: Mapping[str, int]
    latency: int = 0


@dataclass(frozen=True)
class Context:
    """What the cost of an instruction depends on besides itself: its steps, the array's preload, constant sizes,
    and of a stream's steps those that stay on the chip."""

    arch: Arch
    steps: int
    preload: Instruction | None
    bytes_of: Mapping[str, int]
    on_chip: int = 0


Rule = Callable[[Instruction, Context], Cost]


# -- transfers -------------------------------------------------------------------------------------------------


def _dma(engine: str, size: int, words: int, arch: Arch) -> Cost:
    if not size:
        return Cost(engine, 0, 0, {})
    cycles = arch.dram.latency_cycles + int(-(-size // arch.dram_bytes_per_cycle))
    return Cost(engine, cycles, 0, Counter(dram_bytes=size, scratchpad_words=words), arch.dram.latency_cycles)


def _stream(ins: Instruction, at: Context) -> Cost:
    near, far = int(ins["words"]) * at.on_chip, int(ins["words"]) * (at.steps - at.on_chip)
    cost = _dma(ins.mnemonic, far * at.arch.memory.word_bits // 8, far, at.arch)
    if not near:
        return cost
    cycles = cost.cycles + ceil_div(near, at.arch.vector.width)
    events = Counter(cost.events) + Counter(scratchpad_words=2 * near)
    return Cost(ins.mnemonic, cycles, 0, events, cost.latency)


def _const(ins: Instruction, at: Context) -> Cost:
    words = int(ins["words"])
    return _dma("load", words * at.arch.memory.word_bits // 8, words, at.arch)


def _fetch(ins: Instruction, at: Context) -> Cost:
    size = at.bytes_of[str(ins["src"])]
    cost = _dma("load", size, 0, at.arch)
    words = ceil_div(size * 8, at.arch.memory.word_bits)
    return Cost("load", cost.cycles, 0, Counter(dram_bytes=size, parameter_words=words), cost.latency)


# -- array -----------------------------------------------------------------------------------------------------


def _held(at: Context) -> tuple[int, int, bool]:
    assert at.preload is not None
    return int(at.preload["rows"]), int(at.preload["cols"]), bool(at.preload["complex"])


def _preload(ins: Instruction, at: Context) -> Cost:
    """Parameters are shifted down the columns, a row of the array a cycle."""
    if ins["mode"] == "sel":
        return Cost("preload", 1, 0, {})
    weights = int(ins["rows"]) * int(ins["cols"])
    each = 1 if ins["mode"] == "mac" else 2 if ins["complex"] else 1
    each *= 3 if ins["mode"] in ("fri", "tri") else 1
    wide = ceil_div(each * at.arch.array.cols, at.arch.array.port_words_in)
    # states lie in the rows next to the edge: no more rows than are in use are shifted in
    rows = at.arch.array.rows if ins["mode"] == "mac" else int(ins["rows"]) * (at.arch.gang if ins["complex"] else 1)
    return Cost("preload", rows * max(1, wide), 0, Counter(parameter_words=weights * each))


def _state_move(ins: Instruction, at: Context) -> Cost:
    words, array = int(ins["words"]), at.arch.array
    ports = array.port_words_in if ins.mnemonic == "state.load" else array.port_words_out
    return Cost("compute", ceil_div(words, ports), 0, Counter(scratchpad_words=words))


def _interval(at: Context, words_in: int, words_out: int, is_complex: bool) -> int:
    """Cycles between two steps."""
    array = at.arch.array
    ganged = 2 if is_complex and array.complex == "ganged" else 1
    return max(ganged, ceil_div(words_in, array.port_words_in), ceil_div(words_out, array.port_words_out))


def _mac(ins: Instruction, at: Context) -> Cost:
    rows, cols, _ = _held(at)
    array, steps = at.arch.array, at.steps
    if not steps:
        return Cost("compute", 0, 0, {})
    interval = _interval(at, rows, cols, False)
    cycles = (steps - 1) * interval + array.rows + array.cols - 2 + array.mac_depth
    moved = steps * (rows + cols * (2 if ins["accumulate"] else 1))
    macs = steps * rows * cols
    return Cost("compute", cycles, macs, Counter(macs=macs, scratchpad_words=moved), cycles - steps * interval)


def _fri(ins: Instruction, at: Context) -> Cost:
    rows, cols, is_complex = _held(at)
    macs = at.steps * rows * cols * STATE_MACS[is_complex]
    moved = at.steps * cols * (3 if ins["accumulate"] else 2)
    return _in_place(at, cols, cols, is_complex, macs, moved)


def _driven(ins: Instruction, at: Context) -> Cost:
    rows, cols, is_complex = _held(at)
    words = cols * (2 if is_complex else 1)
    streamed = 2 if ins.mnemonic == "sel" else 1
    macs = at.steps * rows * cols * DRIVEN_MACS[is_complex]
    return _in_place(at, words * streamed, words, is_complex, macs, at.steps * words * (streamed + 1))


def _in_place(at: Context, words_in: int, words_out: int, is_complex: bool, macs: int, moved: int) -> Cost:
    array = at.arch.array
    if not at.steps:
        return Cost("compute", 0, 0, {})
    interval = _interval(at, words_in, words_out, is_complex)
    # passes that follow each other without a gap all go along the diagonal
    skew = array.cols - 1 if array.handover_steps else 0
    cycles = (at.steps - 1) * interval + array.rows + skew + array.mac_depth - 1
    events = Counter(state_macs=macs, scratchpad_words=moved)
    return Cost("compute", cycles, macs, events, cycles - at.steps * interval)


# -- vector unit -----------------------------------------------------------------------------------------------


def _vector(at: Context, words: int, moved: int, passes: int = 1, macs: int = 0) -> Cost:
    """`words` words a step through `passes` passes; `moved` words a step to and from the scratchpad."""
    work = at.steps * words * passes
    if not work:
        return Cost("vector", 0, 0, {})
    cycles = ceil_div(work, at.arch.vector.width) + at.arch.vector.latency_cycles
    events = Counter(vector_words=work, scratchpad_words=at.steps * moved)
    return Cost("vector", cycles, macs * at.steps, events, at.arch.vector.latency_cycles)


def _function(name: Any, at: Context) -> int:
    return 1 if name in FUNCTIONS_OF_ONE_PASS else at.arch.vector.function_passes


def _words(ins: Instruction) -> int:
    return int(ins["words"])


def _contract(ins: Instruction, at: Context) -> Cost:
    g, m, k, n = (int(ins[name]) for name in ("groups", "m", "k", "n"))
    return _vector(at, g * m * k * n, g * (m * k + k * n + m * n), macs=g * m * k * n)


def _reduce(ins: Instruction, at: Context) -> Cost:
    outer, axis, inner = (int(ins[name]) for name in ("outer", "axis", "inner"))
    return _vector(at, outer * axis * inner, outer * inner * (axis + 1))


def _scan(ins: Instruction, at: Context) -> Cost:
    """A step waits for the one before: every step pays the unit's latency."""
    words, vector = _words(ins), at.arch.vector
    macs = words * (2 if ins["complex"] else 1)
    cycles = at.steps * (ceil_div(macs, vector.width) + vector.latency_cycles)
    moved = at.steps * words * (2 if ins["a_held"] else 3)
    events = Counter(vector_words=at.steps * macs, scratchpad_words=moved)
    return Cost("vector", cycles, at.steps * macs, events)


def _spike(ins: Instruction, at: Context) -> Cost:
    """A comparison and a multiply-add a neuron; a step waits for the one before."""
    words, vector = _words(ins), at.arch.vector
    cycles = at.steps * (ceil_div(2 * words, vector.width) + vector.latency_cycles)
    events = Counter(vector_words=2 * at.steps * words, scratchpad_words=2 * at.steps * words + 5 * words)
    return Cost("vector", cycles, at.steps * words, events)


def _fir(ins: Instruction, at: Context) -> Cost:
    work = int(ins["channels"]) * int(ins["length"])
    return _vector(at, work, 2 * int(ins["channels"]), macs=work)


def _lookup(ins: Instruction, at: Context) -> Cost:
    words = _words(ins) * int(ins["count"]) * at.steps
    return _dma("load", words * at.arch.memory.word_bits // 8, words, at.arch)


def _once(ins: Instruction, at: Context, passes: int = 1) -> Cost:
    row = Context(at.arch, 1, at.preload, at.bytes_of)
    return _vector(row, _words(ins), 2 * _words(ins), passes)


RULES: dict[str, Rule] = {
    "fetch": _fetch,
    "const": _const,
    "load": _stream,
    "store": _stream,
    "preload": _preload,
    "state.load": _state_move,
    "state.store": _state_move,
    "mac": _mac,
    "fri": _fri,
    "fri.x": _driven,
    "tri": _fri,
    "tri.x": _driven,
    "sel": _driven,
    "unary": lambda i, at: _vector(at, _words(i), 2 * _words(i), _function(i["fn"], at)),
    "binary": lambda i, at: _vector(
        at, _words(i), 3 * _words(i), at.arch.vector.function_passes if i["fn"] in ("div", "pow") else 1
    ),
    "gate": lambda i, at: _vector(at, _words(i), 3 * _words(i), 1 + _function(i["fn"], at)),
    "select": lambda i, at: _vector(at, _words(i), 4 * _words(i)),
    # sum, then sum of squares, then scale; a function for each vector is hidden in its latency
    "norm": lambda i, at: _vector(at, _words(i), 2 * _words(i), 3),
    # maximum, exponential and sum, quotient
    "softmax": lambda i, at: _vector(at, _words(i), 2 * _words(i), 2 + at.arch.vector.function_passes),
    "reduce": _reduce,
    "copy": lambda i, at: _vector(at, _words(i), 2 * _words(i)),
    "gather": lambda i, at: _vector(at, _words(i), 2 * _words(i)),
    "contract": _contract,
    "lookup": _lookup,
    "scan": _scan,
    "spike": _spike,
    "decay": lambda i, at: _vector(at, _words(i), _words(i) + 1, 1 + at.arch.vector.function_passes),
    "pool": lambda i, at: _vector(at, _words(i), _words(i)),
    "average": lambda i, at: _once(i, at, at.arch.vector.function_passes),
    "fir": _fir,
    "delay": lambda i, at: _vector(at, _words(i), 2 * _words(i)),
    "downsample": lambda i, at: _vector(at, _words(i), 2 * _words(i)),
    "fill": _once,
}
