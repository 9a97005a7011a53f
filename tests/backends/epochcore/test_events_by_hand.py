"""What energy is charged for, of one execution of each instruction, worked out by hand: 6 steps of 2 samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.epochcore.arch import load_arch
from backends.epochcore.clock.cost import Context
from backends.epochcore.clock.pricing import RULES
from isa import Instruction, Kind, instruction
from isa.epochcore import EPOCHCORE

ARCH = load_arch("epochcore-128")
F = ARCH.vector.function_passes  # of tanh, exp and the like
BYTES = ARCH.memory.word_bits // 8
FREE: dict[Kind, Any] = {Kind.IMM: 1, Kind.ADDR: 0, Kind.REG: "n0", Kind.DATA: "w"}  # of operands that no test is about


def made(mnemonic: str, **given: Any) -> Instruction:
    needed = (field for field in EPOCHCORE.by_mnemonic[mnemonic].fields if field.default is None)
    free = {field.name: FREE[field.kind] for field in needed if field.name not in given}
    return instruction(EPOCHCORE, mnemonic, None, **free, **given)


def cost(mnemonic: str, held: dict[str, Any] | None = None, on_chip: int = 0, **given: Any) -> Any:
    preload = None if held is None else made("preload", **held)
    data = {"w": np.arange(10)}
    at = Context(ARCH, 6, preload, {"w": 100}, on_chip=on_chip, data=data, samples=2)
    return RULES[mnemonic](made(mnemonic, **given), at)


# of the vector unit: operands, words through the lanes, words to and from the scratchpad, multiply-accumulates
VECTOR: list[tuple[str, dict[str, Any], int, int, int]] = [
    ("unary", {"fn": "tanh", "words": 10}, 120 * F, 240, 0),
    ("unary", {"fn": "relu", "words": 10}, 120, 240, 0),
    ("binary", {"fn": "add", "words": 10}, 120, 360, 0),
    ("binary", {"fn": "div", "words": 10}, 120 * F, 360, 0),
    ("binary", {"fn": "pow", "words": 10}, 120 * (2 * F + 1), 360, 0),
    ("gate", {"fn": "sigmoid", "words": 10}, 120 * (1 + F), 360, 0),
    ("select", {"words": 10}, 120, 480, 0),
    # the words are read for the mean squares and again to be scaled; epsilon, and scale and shift of 5 words
    ("norm", {"kind": "rms", "words": 10, "vectors": 2, "affine": True}, 240, 360 + 2 * 11, 0),
    ("norm", {"kind": "layer", "words": 10, "vectors": 2}, 360, 480 + 2 * 1, 0),
    ("softmax", {"words": 10}, 120 * (2 + F), 600, 0),
    ("softmax", {"words": 10, "log": True}, 120 * (2 + F), 480, 0),
    ("reduce", {"fn": "sum", "outer": 2, "axis": 5, "inner": 1}, 120, 12 * (10 + 2), 0),
    ("copy", {"words": 10}, 120, 240, 0),
    ("gather", {"words": 10, "index": "w"}, 120, 240, 0),
    # six sums of four products
    ("contract", {"groups": 2, "m": 3, "k": 4, "n": 1}, 12 * 24, 12 * 6 * (8 + 1), 12 * 24),
    # the states come and go once, and so do decays that stay
    ("scan", {"words": 10, "a_held": True}, 120, 240 + 2 * 30, 120),
    ("scan", {"words": 10}, 120, 360 + 2 * 20, 120),
    ("scan", {"words": 10, "complex": True}, 240, 360 + 2 * 20, 240),
    # three of four segments have steps: their ends and one decay in, two that are handed on, and all states out
    ("carry", {"words": 10, "segments": 4, "span": 2}, 60, 2 * 10 * (3 + 1 + 4), 60),
    ("carry", {"words": 10, "segments": 4, "span": 3}, 40, 2 * 10 * (2 + 1 + 4), 40),
    ("carry", {"words": 10, "segments": 4, "span": 6}, 20, 2 * 10 * (1 + 4), 20),  # nothing is handed on
    ("spike", {"words": 10}, 240, 240 + 2 * 70, 120),
    ("decay", {"words": 10}, 120 * (1 + F), 240 + 2 * 10, 0),
    ("decay", {"words": 10, "complex": True}, 60 * (4 + 3 * F), 12 * 15 + 2 * 10, 0),
    ("pool", {"fn": "sum", "words": 10}, 120, 120 + 2 * 20, 0),
    ("average", {"words": 10}, 20 * F, 40, 0),
    ("fir", {"channels": 2, "length": 5}, 120, 48 + 2 * (10 + 2 * 8), 120),
    ("delay", {"words": 10, "lag": 3}, 120, 240 + 2 * 2 * 30, 0),
    ("downsample", {"kind": "sum", "words": 10, "stride": 2}, 120, 240 + 2 * 20, 0),
    # two windows of three steps and two that are past
    ("unfold", {"channels": 5, "span": 3, "past": 2}, 100, 100 + 2 * 5 * (6 + 2 * 2), 0),
    ("fold", {"channels": 5, "span": 3}, 60, 120, 0),
    ("fill", {"words": 10}, 20, 20, 0),
]


@pytest.mark.parametrize(("mnemonic", "given", "work", "moved", "macs"), VECTOR)
def test_vectors(mnemonic: str, given: dict[str, Any], work: int, moved: int, macs: int) -> None:
    found = cost(mnemonic, **given)
    assert (found.engine, found.macs) == ("vector", macs)
    assert found.events == {"vector_words": work, "scratchpad_words": moved}


STATES = {"mode": "fri", "rows": 5, "cols": 3}
TURNED = {**STATES, "complex": True}
WEIGHTS = {"mode": "mac", "rows": 5, "cols": 3}

ARRAY: list[tuple[str, dict[str, Any] | None, dict[str, Any], dict[str, int]]] = [
    ("preload", None, WEIGHTS, {"parameter_words": 15}),
    ("preload", None, STATES, {"parameter_words": 45}),  # a, b and c
    ("preload", None, TURNED, {"parameter_words": 90}),
    ("preload", None, {**STATES, "mode": "tri"}, {"parameter_words": 45}),
    ("preload", None, {**STATES, "mode": "fri.x"}, {"parameter_words": 15}),
    ("preload", None, {**STATES, "mode": "sel"}, {}),
    ("state.load", STATES, {"words": 15}, {"scratchpad_words": 30}),
    ("state.store", STATES, {"words": 15}, {"scratchpad_words": 30}),
    ("mac", WEIGHTS, {}, {"macs": 180, "scratchpad_words": 12 * (5 + 3)}),
    ("mac", WEIGHTS, {"accumulate": True}, {"macs": 180, "scratchpad_words": 12 * (5 + 3 + 3)}),
    ("fri", STATES, {}, {"state_macs": 180 * 3, "scratchpad_words": 12 * 6}),  # a x, b u, c x
    ("fri", STATES, {"accumulate": True}, {"state_macs": 180 * 3, "scratchpad_words": 12 * 9}),
    ("fri", TURNED, {}, {"state_macs": 180 * (4 + 2 + 2), "scratchpad_words": 12 * 6}),
    ("tri", {**STATES, "mode": "tri"}, {}, {"state_macs": 180 * 3, "scratchpad_words": 12 * 6}),
    ("fri.x", {**STATES, "rows": 1, "mode": "fri.x"}, {}, {"state_macs": 36, "scratchpad_words": 12 * 6}),
    ("sel", {**STATES, "rows": 1, "mode": "sel"}, {}, {"state_macs": 36, "scratchpad_words": 12 * 9}),
]


@pytest.mark.parametrize(("mnemonic", "held", "given", "events"), ARRAY)
def test_the_array(mnemonic: str, held: dict[str, Any] | None, given: dict[str, Any], events: dict[str, int]) -> None:
    assert cost(mnemonic, held, **given).events == events


@pytest.mark.parametrize(
    ("mnemonic", "given", "size", "kind", "words"),
    [
        ("load", {"words": 10}, 120 * BYTES, "scratchpad", 120),
        ("store", {"words": 10}, 120 * BYTES, "scratchpad", 120),
        # four steps of six never leave the chip: read and written there
        ("store", {"words": 10, "on_chip": 4}, 40 * BYTES, "scratchpad", 40 + 2 * 80),
        ("const", {"words": 10}, 10 * BYTES, "scratchpad", 10),
        ("lookup", {"words": 10, "count": 2, "table": "w"}, 240 * BYTES, "scratchpad", 240),
        ("fetch", {"src": "w"}, 100, "parameter", 100 // BYTES),
    ],
)
def test_transfers(mnemonic: str, given: dict[str, Any], size: int, kind: str, words: int) -> None:
    assert cost(mnemonic, **given).events == {"dram_bytes": size, f"{kind}_words": words}
