"""What the vector unit's instructions cost: words over its width, times passes, and its latency once, or as often as a
sweep over the words needs all that comes of the one before. `stepped.lanes` takes every word through its lane.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from backends.epochcore.banks import beats, jumping
from backends.epochcore.clock.cost import Context, Cost, Ints, Rule
from backends.epochcore.clock.gemm import ceil_div
from isa import Instruction
from ssmc.ir.ops.rounded import GRID, count_rows
from ssmc.ir.ops.rounded_sums import GATED, TERM

FUNCTIONS_OF_ONE_PASS = frozenset(
    {"identity", "neg", "abs", "sign", "relu", "square", "floor", "ceil", "round", "heaviside", "heaviside_or_equal"}
)


def _vector(at: Context, words: int, moved: int, *sweeps: int, macs: int = 0) -> Cost:
    """`words` words a step, in one sweep of one pass or in `sweeps` of so many passes, each of which waits for all that
    comes of the one before; `moved` words a step to and from the scratchpad."""
    work = at.rows * words * sum(sweeps or (1,))
    if not work:
        return Cost("vector", 0, 0, {})
    latency = at.arch.vector.latency_cycles
    takes = partial(_swept, at.samples * words, sweeps or (1,), at.arch.vector.width, latency)
    events = {"vector_words": work, "scratchpad_words": at.rows * moved}
    return Cost("vector", takes(0, at.steps) + latency, macs * at.rows, events, latency=latency, takes=takes)


def _swept(words: int, sweeps: tuple[int, ...], width: int, latency: int, low: Any, high: Any) -> Any:
    """Cycles for the steps from `low` to `high`."""
    return sum(-(-(high - low) * words * passes // width) for passes in sweeps) + (len(sweeps) - 1) * latency


def _and_rows(cost: Cost, at: Context, words: int) -> Cost:
    """And rows of each sample that are read, or written, once: what is carried or the same at all steps."""
    if not at.steps:
        return cost
    return replace(
        cost, events={**cost.events, "scratchpad_words": cost.events["scratchpad_words"] + at.samples * words}
    )


def _function(name: Any, at: Context) -> int:
    return 1 if name in FUNCTIONS_OF_ONE_PASS else at.arch.vector.function_passes


def _words(ins: Instruction) -> int:
    return int(ins["words"])


def _contract(ins: Instruction, at: Context) -> Cost:
    g, m, k, n = (int(ins[name]) for name in ("groups", "m", "k", "n"))
    return _vector(at, g * m * k * n, g * m * n * (2 * k + 1), macs=g * m * k * n)


def _reduce(ins: Instruction, at: Context) -> Cost:
    outer, axis, inner = (int(ins[name]) for name in ("outer", "axis", "inner"))
    return _vector(at, outer * axis * inner, outer * inner * (axis + 1))


def _scan(ins: Instruction, at: Context) -> Cost:
    """A step waits for the one before: every step, of all samples, pays the unit's latency."""
    held, words = bool(ins["a_held"]), _words(ins)
    cost = _scan_of(words, bool(ins["complex"]), at.steps, 2 if held else 3, at)
    return _and_rows(cost, at, (2 + held) * words)


def _scan_of(words: int, is_complex: bool, steps: int, streams: int, at: Context) -> Cost:
    vector, words = at.arch.vector, words * at.samples
    macs = words * (2 if is_complex else 1)
    cycles = steps * (ceil_div(macs, vector.width) + vector.latency_cycles)
    events = {"vector_words": steps * macs, "scratchpad_words": steps * words * streams}
    return Cost("vector", cycles, steps * macs, events)


def _carry(ins: Instruction, at: Context) -> Cost:
    """As a scan over the segments that have steps; the states of all are written."""
    number = int(ins["segments"])
    segments = max(1, min(ceil_div(at.steps, int(ins["span"])), number))
    cost = _scan_of(_words(ins), bool(ins["complex"]), segments, 0, at)
    moved = (1 + number + (segments - 1) + (segments > 1)) * _words(ins) * at.samples
    return replace(cost, apart=True, events={**cost.events, "scratchpad_words": moved})


def _spike(ins: Instruction, at: Context) -> Cost:
    """A comparison and a multiply-add a neuron; a step waits for the one before."""
    words, vector = _words(ins) * at.samples, at.arch.vector
    cycles = at.steps * (ceil_div(2 * words, vector.width) + vector.latency_cycles)
    events = {"vector_words": 2 * at.steps * words, "scratchpad_words": 2 * at.steps * words}
    return _and_rows(Cost("vector", cycles, at.steps * words, events), at, 7 * _words(ins))


def _rounded(ins: Instruction, at: Context) -> Cost:
    """A multiply-add a state, two where complex; a pass to a code and one from it a place that rounds (ours); a step
    waits for the one before."""
    words, rows, vector = _words(ins), count_rows(ins.__getitem__), at.arch.vector
    macs, moved = at.samples * words * (2 if ins["complex"] else 1), 2 * at.rows * words
    work = macs + 2 * at.samples * words * (rows // len(GRID))
    cycles = at.steps * (ceil_div(work, vector.width) + vector.latency_cycles)
    events = {"vector_words": work * at.steps, "scratchpad_words": moved}
    return _and_rows(Cost("vector", cycles, at.steps * macs, events), at, (2 + rows) * words)


def _rounded_sums(ins: Instruction, at: Context) -> Cost:
    """A multiply-add a term; a pass to a code and one from it a number (ours); a step waits for the one before."""
    words, terms, vector = _words(ins), int(ins["terms"]), at.arch.vector
    macs, moved = at.samples * terms, 2 * at.rows * words
    work = macs + 2 * at.samples * words
    cycles = at.steps * (ceil_div(work, vector.width) + vector.latency_cycles)
    events = {"vector_words": work * at.steps, "scratchpad_words": moved}
    rows = (2 + len(GRID)) * words + len(GATED if ins["gated"] else TERM) * terms
    return _and_rows(Cost("vector", cycles, at.steps * macs, events), at, rows)


def _fir(ins: Instruction, at: Context) -> Cost:
    channels, length = int(ins["channels"]), int(ins["length"])
    cost = _vector(at, channels * length, 2 * channels, macs=channels * length)
    return _and_rows(cost, at, channels * (length + 2 * (length - 1)))


def _delay(ins: Instruction, at: Context) -> Cost:
    return _and_rows(_vector(at, _words(ins), 2 * _words(ins)), at, 2 * int(ins["lag"]) * _words(ins))


def _unfold(ins: Instruction, at: Context) -> Cost:
    """A word for every place of a row, which is as long as its window and what it holds of the past."""
    span, past, channels = int(ins["span"]), int(ins["past"]), int(ins["channels"]) * at.samples
    rows = ceil_div(at.steps, span)
    cost = _vector(replace(at, steps=rows), int(ins["channels"]) * (span + past), int(ins["channels"]) * (span + past))
    cost = _and_rows(cost, at, int(ins["channels"]) * (at.steps + 2 * past))
    step, last = np.arange(at.steps), np.int64(rows - 1)
    if ins["reverse"]:
        places = (1 + step // span - np.maximum(0, (step - past) // span))[::-1]
        ends = 0
    else:
        places = 1 + np.minimum((step + past) // span, last) - step // span
        ends = rows * span - at.steps  # zeros that fill up the last window
    done = np.concatenate([[0], np.cumsum(places)])
    done[1:] += rows * (span + past) - ends - done[-1]  # what was carried, with the first step
    done[-1:] += ends
    width = at.arch.vector.width
    return replace(cost, takes=lambda low, high: -(-channels * (done[high] - done[low]) // width))


def _gather(ins: Instruction, at: Context) -> Cost:
    index = at.data.get(str(ins["index"]), np.zeros(_words(ins)))
    return _jumping(ins, at, (np.ravel(index).astype(np.int64), int(ins["src_pitch"])))


def _copy(ins: Instruction, at: Context) -> Cost:
    places = np.arange(_words(ins))
    source = 0 if ins["src_held"] else int(ins["src_pitch"])
    return _jumping(ins, at, (places, source), (places, int(ins["dst_pitch"])))


def _jumping(ins: Instruction, at: Context, *operands: tuple[Ints, int]) -> Cost:
    """Whole rows at once, or parts of one, of one sample after the other; words that lie in one bank wait."""
    cost = _vector(at, _words(ins), 2 * _words(ins))
    if not at.rows:
        return cost
    jumps = [jumping(*operand) for operand in operands]

    def takes(low: Any, high: Any) -> Any:
        steps, back = np.unique(high - low, return_inverse=True)
        found = np.array([beats(jumps, int(n), at.arch) for n in steps], np.int64)
        return at.samples * found[back]

    cycles = at.samples * beats(jumps, at.steps, at.arch) + cost.latency
    return replace(cost, cycles=cycles, takes=takes)


def _binary(ins: Instruction, at: Context) -> Cost:
    """A quotient is a function of two; a power a logarithm, a product and an exponential."""
    passes = {"div": at.arch.vector.function_passes, "pow": 2 * at.arch.vector.function_passes + 1}
    return _vector(at, _words(ins), 3 * _words(ins), passes.get(str(ins["fn"]), 1))


def _norm(ins: Instruction, at: Context) -> Cost:
    """Means, which root mean squares have none of; mean squares; the words themselves. A function for each vector is
    hidden in the latency."""
    sweeps = (1, 1) if ins["kind"] == "rms" else (1, 1, 1)
    cost = _vector(at, _words(ins), (len(sweeps) + 1) * _words(ins), *sweeps)
    return _and_rows(cost, at, 1 + 2 * (_words(ins) // int(ins["vectors"])) * bool(ins["affine"]))


def _decay(ins: Instruction, at: Context) -> Cost:
    """A product and an exponential; of complex rates one more product, cosine and sine, and a product a half."""
    words, function = _words(ins), at.arch.vector.function_passes
    if not ins["complex"]:
        return _and_rows(_vector(at, words, 2 * words, 1 + function), at, words)
    return _and_rows(_vector(at, words // 2, 3 * (words // 2), 4 + 3 * function), at, words)


def _downsample(ins: Instruction, at: Context) -> Cost:
    """As if every step gave a result; of windows that are joined the one that is carried comes in and goes out."""
    cost = _vector(at, _words(ins), 2 * _words(ins))
    return cost if ins["kind"] == "take" else _and_rows(cost, at, 2 * _words(ins))


def _once(ins: Instruction, at: Context, passes: int = 1) -> Cost:
    return _vector(replace(at, steps=1), _words(ins), 2 * _words(ins), passes)


VECTOR: dict[str, Rule] = {
    "unary": lambda i, at: _vector(at, _words(i), 2 * _words(i), _function(i["fn"], at)),
    "binary": _binary,
    "gate": lambda i, at: _vector(at, _words(i), 3 * _words(i), 1 + _function(i["fn"], at)),
    "select": lambda i, at: _vector(at, _words(i), 4 * _words(i)),
    "norm": _norm,
    # maximum, exponential and sum, quotient
    "softmax": lambda i, at: _vector(
        at, _words(i), (4 if i["log"] else 5) * _words(i), 1, at.arch.vector.function_passes, 1
    ),
    "reduce": _reduce,
    "copy": _copy,
    "gather": _gather,
    "contract": _contract,
    "scan": _scan,
    "carry": _carry,
    "spike": _spike,
    "rounded": _rounded,
    "rounded.sums": _rounded_sums,
    "decay": _decay,
    "pool": lambda i, at: _and_rows(_vector(at, _words(i), _words(i)), at, 2 * _words(i)),
    "average": lambda i, at: _once(i, at, at.arch.vector.function_passes),
    "fir": _fir,
    "delay": _delay,
    "downsample": _downsample,
    "unfold": _unfold,
    "fold": lambda i, at: _vector(at, int(i["channels"]), 2 * int(i["channels"])),
    "fill": lambda i, at: _vector(replace(at, steps=1), _words(i), _words(i)),
}
