"""What the vector unit's instructions cost: words over its width, times passes, and its latency once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from backends.epochcore.banks import waits
from backends.epochcore.cost import Context, Cost, Rule
from backends.epochcore.gemm import ceil_div
from isa import Instruction
from ssmc.ir.ops.rounded import GRID, count_rows

FUNCTIONS_OF_ONE_PASS = frozenset(
    {"identity", "neg", "abs", "sign", "relu", "square", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"}
)


def _vector(at: Context, words: int, moved: int, passes: int = 1, macs: int = 0) -> Cost:
    """`words` words a step through `passes` passes; `moved` words a step to and from the scratchpad."""
    work = at.rows * words * passes
    if not work:
        return Cost("vector", 0, 0, {})
    cycles = ceil_div(work, at.arch.vector.width) + at.arch.vector.latency_cycles
    events = {"vector_words": work, "scratchpad_words": at.rows * moved}
    return Cost("vector", cycles, macs * at.rows, events, latency=at.arch.vector.latency_cycles)


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
    """A step waits for the one before: every step, of all samples, pays the unit's latency."""
    return _scan_of(_words(ins), bool(ins["complex"]), at.steps, 2 if ins["a_held"] else 3, at)


def _scan_of(words: int, is_complex: bool, steps: int, streams: int, at: Context) -> Cost:
    vector, words = at.arch.vector, words * at.samples
    macs = words * (2 if is_complex else 1)
    cycles = steps * (ceil_div(macs, vector.width) + vector.latency_cycles)
    events = {"vector_words": steps * macs, "scratchpad_words": steps * words * streams}
    return Cost("vector", cycles, steps * macs, events)


def _carry(ins: Instruction, at: Context) -> Cost:
    """As a scan over the segments that have steps."""
    segments = min(ceil_div(at.steps, int(ins["span"])), int(ins["segments"]))
    cost = _scan_of(_words(ins), bool(ins["complex"]), segments, 2, at)
    return replace(cost, apart=True)


def _spike(ins: Instruction, at: Context) -> Cost:
    """A comparison and a multiply-add a neuron; a step waits for the one before."""
    words, vector = _words(ins) * at.samples, at.arch.vector
    cycles = at.steps * (ceil_div(2 * words, vector.width) + vector.latency_cycles)
    events = {"vector_words": 2 * at.steps * words, "scratchpad_words": 2 * at.steps * words + 5 * words}
    return Cost("vector", cycles, at.steps * words, events)


def _rounded(ins: Instruction, at: Context) -> Cost:
    """A multiply-add a state, two where complex; a pass to a code and one from it a place that rounds (ours); a step
    waits for the one before."""
    words, rows, vector = _words(ins), count_rows(ins.__getitem__), at.arch.vector
    macs, moved = at.samples * words * (2 if ins["complex"] else 1), 2 * at.rows * words
    work = macs + 2 * at.samples * words * (rows // len(GRID))
    cycles = at.steps * (ceil_div(work, vector.width) + vector.latency_cycles)
    events = {"vector_words": work * at.steps, "scratchpad_words": moved + rows * words}
    return Cost("vector", cycles, at.steps * macs, events)


def _fir(ins: Instruction, at: Context) -> Cost:
    work = int(ins["channels"]) * int(ins["length"])
    return _vector(at, work, 2 * int(ins["channels"]), macs=work)


def _windows(ins: Instruction, at: Context) -> Cost:
    """A pass over the rows of the windows; a row is as long as its window and what it holds of the past."""
    span, past = int(ins["span"]), int(ins["past"]) if ins.mnemonic == "unfold" else 0
    rows = replace(at, steps=ceil_div(at.steps, span))
    words = int(ins["channels"]) * (span + past)
    return _vector(rows, words, 2 * words)


def _gather(ins: Instruction, at: Context) -> Cost:
    cost, index = _vector(at, _words(ins), 2 * _words(ins)), at.data.get(str(ins["index"]))
    if index is None:
        return cost
    late = waits(np.ravel(index).astype(np.int64), int(ins["src_pitch"]), at.rows, at.arch)
    return replace(cost, cycles=cost.cycles + late)


def _copy(ins: Instruction, at: Context) -> Cost:
    words, places = _words(ins), np.arange(_words(ins))
    source = 0 if ins["src_held"] else int(ins["src_pitch"])
    late = max(waits(places, pitch, at.rows, at.arch) for pitch in (source, int(ins["dst_pitch"])))
    cost = _vector(at, words, 2 * words)
    return replace(cost, cycles=cost.cycles + late)


def _once(ins: Instruction, at: Context, passes: int = 1) -> Cost:
    return _vector(replace(at, steps=1), _words(ins), 2 * _words(ins), passes)


VECTOR: dict[str, Rule] = {
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
    "copy": _copy,
    "gather": _gather,
    "contract": _contract,
    "scan": _scan,
    "carry": _carry,
    "spike": _spike,
    "rounded": _rounded,
    "decay": lambda i, at: _vector(at, _words(i), _words(i) + 1, 1 + at.arch.vector.function_passes),
    "pool": lambda i, at: _vector(at, _words(i), _words(i)),
    "average": lambda i, at: _once(i, at, at.arch.vector.function_passes),
    "fir": _fir,
    "delay": lambda i, at: _vector(at, _words(i), 2 * _words(i)),
    "downsample": lambda i, at: _vector(at, _words(i), 2 * _words(i)),
    "unfold": _windows,
    "fold": _windows,
    "fill": _once,
}
