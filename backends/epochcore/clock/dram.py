"""What transfers cost: the bytes of the DRAM channel, whose latency they pay once."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache, partial
from math import ceil

import numpy as np

from backends.epochcore.arch import Arch
from backends.epochcore.clock.cost import Context, Cost, Ints, Rule
from backends.epochcore.clock.gemm import ceil_div
from isa import Instruction


def _dma(engine: str, size: int, words: int, arch: Arch) -> Cost:
    if not size:
        return Cost(engine, 0, 0, {})
    transfer = _dram_cycles(size, arch)
    events = {"dram_bytes": size, "scratchpad_words": words}
    latency = arch.dram.latency_cycles
    return Cost(engine, latency + transfer, 0, events, busy=transfer, latency=latency)


def _dram_cycles(size: int, arch: Arch) -> int:
    """Cycles in which `size` bytes cross the channel, its latency apart."""
    return ceil(size * _cycles_a_byte(arch.clock_hz, arch.dram.bytes_per_second))


@lru_cache(maxsize=16)
def _cycles_a_byte(clock_hz: float, bytes_per_second: float) -> Fraction:
    return Fraction(clock_hz) / Fraction(bytes_per_second)


def _stream(ins: Instruction, at: Context) -> Cost:
    near, far = (int(ins["words"]) * n * at.samples for n in (at.on_chip, at.steps - at.on_chip))
    cost = _dma(ins.mnemonic, far * at.arch.memory.word_bits // 8, far, at.arch)
    if not near:
        return cost
    more = ceil_div(near, at.arch.vector.width)
    moved = cost.events.get("scratchpad_words", 0) + 2 * near
    events = {**cost.events, "scratchpad_words": moved}
    takes = partial(_mixed, ins, at) if far else None
    return replace(cost, cycles=cost.cycles + more, busy=(cost.busy or 0) + more, events=events, takes=takes)


def _mixed(ins: Instruction, at: Context, low: Ints, high: Ints) -> Ints:
    """Cycles of blocks of a stream that is on the chip in part: of the channel, and of the way on the chip."""
    first, words = at.on_chip if at.near_first else at.steps - at.on_chip, int(ins["words"]) * at.samples
    ahead = np.minimum(high, first) - np.minimum(low, first)  # steps that are on this side of the border, and behind it
    near, far = (ahead, high - low - ahead) if at.near_first else (high - low - ahead, ahead)
    rate = _cycles_a_byte(at.arch.clock_hz, at.arch.dram.bytes_per_second) * (words * at.arch.memory.word_bits // 8)
    channel = np.array([-(-n * rate.numerator // rate.denominator) for n in far.tolist()], np.int64)
    return np.asarray(channel - (-near * words // at.arch.vector.width))


def _const(ins: Instruction, at: Context) -> Cost:
    words = int(ins["words"])
    return _dma("load", words * at.arch.memory.word_bits // 8, words, at.arch)


def _fetch(ins: Instruction, at: Context) -> Cost:
    size = at.bytes_of[str(ins["src"])]
    cost = _dma("load", size, 0, at.arch)
    words = ceil_div(size * 8, at.arch.memory.word_bits)
    return replace(cost, events={"dram_bytes": size, "parameter_words": words})


def _lookup(ins: Instruction, at: Context) -> Cost:
    words = int(ins["words"]) * int(ins["count"]) * at.rows
    return _dma("load", words * at.arch.memory.word_bits // 8, words, at.arch)


TRANSFERS: dict[str, Rule] = {
    "fetch": _fetch,
    "const": _const,
    "load": _stream,
    "store": _stream,
    "lookup": _lookup,
}
