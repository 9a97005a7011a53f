"""Fixed point of any widths, rounded or cut off, limited or wrapping round, against Python's own integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, Numbers, load_arch
from backends.epochcore.formats import gain
from isa.assembler import assemble
from isa.disassembler import disassemble
from ssmc.ir import Graph, Piece, Quantization, Tensor
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_integers import block, f32, stream_graph
from tests.examples import examples

BASE = load_arch("epochcore-small")


@st.composite
def archs(draw: st.DrawFn) -> Arch:
    parameters, behind = draw(st.integers(2, 24)), draw(st.integers(0, 20))
    numbers = {
        "weight_bits": draw(st.integers(2, 16)),
        "activation_bits": draw(st.integers(2, 24)),
        "parameter_bits": parameters,
        "state_fraction_bits": behind,
        "state_bits": draw(st.integers(max(4, behind + 1), min(27, behind + 10))),
        "accumulator_bits": draw(st.integers(8, 52)),
        "rounding": draw(st.sampled_from(["nearest", "truncate"])),
        "overflow": draw(st.sampled_from(["saturate", "wrap"])),
        "decay": draw(st.sampled_from(["one-minus", "plain"])),
    }
    return with_changes(BASE, **{f"numbers__{name}": value for name, value in numbers.items()})


class Reference:
    """The rules of an architecture's numbers; `outside` counts what did not fit."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers, self.outside = numbers, 0

    def whole(self, value: Fraction) -> int:
        return floor(value) if self.numbers.rounding == "truncate" else round(value)

    def limit(self, value: int, bits: int) -> int:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        if low <= value <= high:
            return value
        self.outside += 1
        return (value - low) % 2**bits + low if self.numbers.overflow == "wrap" else min(max(value, low), high)

    def sum(self, terms: Iterable[int]) -> int:
        """Down a column: every element adds its term to a register of the accumulator's width."""
        total = 0
        for term in terms:
            total = self.limit(total + term, self.numbers.accumulator_bits)
        return total

    def vector(self, values: Sequence[float]) -> tuple[list[int], Fraction]:
        """Entering the array: the smallest power of two with which the largest magnitude, made whole, fits."""
        bits, top = self.numbers.activation_bits, max(abs(Fraction(f32(v))) for v in values)
        if not top:
            return [0] * len(values), Fraction(1)
        unit = Fraction(1)
        while self.whole(top / unit) >= 2 ** (bits - 1):
            unit *= 2
        while self.whole(top / (unit / 2)) < 2 ** (bits - 1):
            unit /= 2
        return [self.whole(Fraction(f32(v)) / unit) for v in values], unit

    def decay(self, a: complex) -> tuple[list[int], Fraction]:
        """Of the compiler, which rounds to the nearest: 1 - a or a, its halves with one unit."""
        kept = 1 - a if self.numbers.decay == "one-minus" else a
        return block([kept.real, kept.imag], self.numbers.parameter_bits)

    def step(self, x: list[int], decay: tuple[list[int], Fraction], drive: list[int]) -> list[int]:
        (re, im), unit = decay
        products = [(re * x[0] - im * x[1]) * unit, (re * x[1] + im * x[0]) * unit]
        near = self.numbers.decay == "one-minus"
        sums = [
            (own - self.whole(p) if near else self.whole(p)) + v for own, p, v in zip(x, products, drive, strict=True)
        ]
        return [self.limit(value, self.numbers.state_bits) for value in sums]


def ran(graph: Graph, arch: Arch, x: np.ndarray) -> tuple[np.ndarray, int]:
    result = BACKEND.simulate(BACKEND.lower(graph, arch, ideal=False), {"x": x}, RunSettings())
    counted = [result.stats.notes.get(name, {}) for name in ("saturations", "wrapped")]
    assert not counted[arch.numbers.overflow == "saturate"]  # counted by its own name
    return result.outputs["y"], sum(sum(layers.values()) for layers in counted)


@settings(max_examples=examples(30), deadline=None)
@given(archs(), st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 5))
def test_products(arch: Arch, seed: int, inputs: int, outputs: int) -> None:
    rng, ref, bits = np.random.default_rng(seed), Reference(arch.numbers), arch.numbers.weight_bits
    most = 2 ** (bits - 1) - 1
    integers, scale = rng.integers(-most, most + 1, (inputs, outputs)), 2.0 ** rng.integers(-9, 3, outputs)
    weight = Tensor(integers * scale, Quantization(bits, tuple(scale)))
    x = rng.standard_normal((1, 3, inputs)) * 10.0 ** rng.integers(-3, 4)
    y, outside = ran(
        stream_graph("tile.matmul", inputs, {"weight": weight, "pieces": (Piece(0, inputs, 0, outputs),)}), arch, x
    )
    for step in range(3):
        vector, unit = ref.vector(x[0, step])
        for n in range(outputs):
            total = ref.sum(v * int(w) for v, w in zip(vector, integers[:, n], strict=True))
            assert y[0, step, n] == f32(total * Fraction(scale[n]) * unit)
    assert outside == ref.outside


@settings(max_examples=examples(30), deadline=None)
@given(archs(), st.integers(0, 2**32))
def test_states_with_drives_of_their_own(arch: Arch, seed: int) -> None:
    rng, ref, numbers = np.random.default_rng(seed), Reference(arch.numbers), arch.numbers
    a = rng.uniform(0.3, 0.9999, 3) * np.exp(1j * rng.uniform(-3, 3, 3))
    x = rng.standard_normal((1, 9, 6)) * 10.0 ** rng.integers(-2, 3)
    y, outside = ran(stream_graph("tile.state", 6, {"decay": Tensor(a), "pieces": (Piece(0, 3, 0, 1),)}), arch, x)
    for n in range(3):
        worth = Fraction(1, 2**numbers.state_fraction_bits) * Fraction(float(gain(a[n : n + 1])[0]))
        state, decay = [0, 0], ref.decay(a[n])
        for k in range(9):
            drive = [ref.whole(Fraction(f32(x[0, k, n + 3 * half])) / worth) for half in range(2)]
            state = ref.step(state, decay, drive)
            assert [y[0, k, n], y[0, k, n + 3]] == [f32(half * worth) for half in state]
    assert outside == ref.outside


@pytest.mark.parametrize("decay", ["one-minus", "plain"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("mode", ["fri.x", "tri.x"])
def test_wide_states_stay_near_floating_point(mode: str, before: bool, decay: str) -> None:
    """Complex ones, alone and with their drive in their decay; what they are is what an ideal program makes of them."""
    rng, arch = np.random.default_rng(0), with_changes(BASE, numbers__parameter_bits=24, numbers__decay=decay)
    a = rng.uniform(0.5, 0.8, 3) * np.exp(1j * rng.uniform(0.5, 2.5, 3))
    graph = stream_graph("tile.state", 6, {"decay": Tensor(a), "pieces": (Piece(0, 3, 0, 1),), "read_before": before})
    x, found = 0.1 * rng.standard_normal((1, 12, 6)), []
    for ideal in (True, False):
        program = BACKEND.lower(graph, arch, ideal=ideal)
        program = assemble(disassemble(program).replace("fri.x", mode), data=program.data)
        found.append(BACKEND.simulate(program, {"x": x}, RunSettings()).outputs["y"])
    states = [np.zeros(3, complex)]
    for v in x[0, :, :3] + 1j * x[0, :, 3:]:
        states.append((a + v * (mode == "tri.x")) * states[-1] + v)
    expected = np.array(states[:-1] if before else states[1:])
    for y in found:
        np.testing.assert_allclose(y[0], np.hstack([expected.real, expected.imag]), atol=1e-4)


@settings(max_examples=examples(30), deadline=None)
@given(archs(), st.integers(0, 2**32), st.booleans())
def test_systems_of_channels(arch: Arch, seed: int, before: bool) -> None:
    rng, ref, numbers = np.random.default_rng(seed), Reference(arch.numbers), arch.numbers
    a = rng.uniform(0.3, 0.9999, (2, 3)) * np.exp(1j * rng.uniform(-3, 3, (2, 3)))
    b, c = (rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3)) for _ in range(2))
    d, x = rng.standard_normal(2), rng.standard_normal((1, 6, 2)) * 10.0 ** rng.integers(-2, 3)
    values = {"decay": Tensor(a), "b": Tensor(b), "c": Tensor(c), "d": Tensor(d)}
    graph = stream_graph("tile.ssm", 2, {**values, "pieces": (Piece(0, 2, 0, 3),), "read_before": before})
    graph.attributes["schedule"] = {"form": "state in place"}
    y, outside = ran(graph, arch, x)
    count, bits = Fraction(1, 2**numbers.state_fraction_bits), numbers.parameter_bits
    for h in range(2):
        gains = [float(g) for g in gain(a[h])]
        drives = [block([v.real / g, v.imag / g], bits) for v, g in zip(b[h], gains, strict=True)]
        reads, read_unit = block([*(c[h] * gains).real, *(c[h] * gains).imag], bits)
        (through,), through_unit = block([d[h]], bits)
        states = [[0, 0]] * 3
        for k in range(6):
            vector, unit = ref.vector(x[0, k])
            following = []
            for state, own, (integers, b_unit) in zip(states, a[h], drives, strict=True):
                drive = [ref.whole(v * vector[h] * b_unit * unit / count) for v in integers]
                following.append(ref.step(state, ref.decay(own), drive))
            read = states if before else following
            total = ref.sum(r * s[0] - i * s[1] for s, r, i in zip(read, reads[:3], reads[3:], strict=True))
            states = following
            value = float(total) * float(read_unit * count) + float(vector[h] * unit) * float(through * through_unit)
            assert y[0, k, h] == f32(value)
    assert outside == ref.outside
