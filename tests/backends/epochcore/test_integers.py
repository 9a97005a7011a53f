"""The realistic machine against a slow reference in Python's own integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, Numbers, arch_text, load_arch, parse_arch
from backends.epochcore.formats import gain, limited, mantissas, weight_integers
from backends.epochcore.program.parameters import pack_element, unpack
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, Piece, Quantization, StreamType, Tensor
from ssmc.target import RunSettings
from tests.examples import examples

ARCH = load_arch("epochcore-small")


def narrow_states() -> Arch:
    """States of 12 bits: they saturate."""
    text = arch_text(ARCH).replace("state_bits: 24", "state_bits: 12")
    return parse_arch(text.replace("state_fraction_bits: 18", "state_fraction_bits: 9"))


def even(value: Fraction) -> int:
    """The nearest integer, ties to even: what Python's round does with fractions."""
    return round(value)


def block(vector: list[float], bits: int) -> tuple[list[int], Fraction]:
    """A vector as integers with one power-of-two unit: the smallest with which the largest fits."""
    top = max(abs(Fraction(v)) for v in vector)
    if top == 0:
        return [0] * len(vector), Fraction(1)
    unit = Fraction(1)
    while even(top / unit) >= 2 ** (bits - 1):
        unit *= 2
    while even(top / (unit / 2)) < 2 ** (bits - 1):
        unit /= 2
    return [even(Fraction(v) / unit) for v in vector], unit


def f32(value: Fraction | float) -> float:
    return float(np.float32(float(value)))


def limit(value: int, bits: int) -> int:
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, value))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6), st.integers(2, 16))
def test_shared_exponent(values: list[float], bits: int) -> None:
    integers, unit = mantissas(np.array(values), bits, -1)
    expected, expected_unit = block(values, bits)
    assert integers.tolist() == expected
    assert Fraction(float(unit[0])) == expected_unit


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6), st.integers(2, 8))
def test_weights_are_symmetric_and_close(column: list[float], bits: int) -> None:
    integers, scale = weight_integers(np.array(column)[:, None], bits)
    assert np.abs(integers).max() <= 2 ** (bits - 1) - 1
    assert np.abs(integers[:, 0] * scale - column).max() <= 0.5001 * scale[0]


def test_saturation_is_counted() -> None:
    values, outside = limited(np.array([-9.0, -8.0, 7.0, 8.0, 100.0]), 4)
    assert values.tolist() == [-8.0, -8.0, 7.0, 7.0, 7.0]
    assert outside == 3


def test_gain_bounds_the_state() -> None:
    decay = np.array([0.0, 0.5, -0.9, 0.99 * np.exp(1j), 1.0])
    assert (gain(decay)[:4] >= 1 / (1 - np.abs(decay[:4])) * (1 - 1e-12)).all()
    assert np.isfinite(gain(decay)).all()


@given(st.booleans(), st.integers(1, 3), st.integers(1, 4), st.booleans(), st.integers(0, 2**32))
def test_packing_round_trip(is_complex: bool, cols: int, rows: int, ideal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    decay, b, c = (rng.uniform(-0.9, 0.9, (cols, rows)) for _ in range(3))
    if is_complex:
        decay, b, c = decay + 0.1j, b + 0.2j, c - 0.3j
    d = rng.standard_normal(cols)
    e = unpack(pack_element(decay, b, c, d, None if ideal else ARCH.numbers), rows, cols, is_complex, True, not ideal)
    got = e.decay if ideal else np.array([1.0, 0.0])[: len(e.decay), None, None] - e.decay * e.decay_unit
    tolerance = 1e-15 if ideal else 2.0**-13
    parts = [decay.real, decay.imag][: len(e.decay)]
    np.testing.assert_allclose(got, parts, atol=tolerance)
    np.testing.assert_allclose((e.b * e.b_unit * e.gain)[0], b.real, atol=tolerance)
    np.testing.assert_allclose((e.c * e.c_unit / e.gain)[0], c.real, atol=tolerance * 4)
    np.testing.assert_allclose(e.d * e.d_unit, d, atol=tolerance * 4)


def stream_graph(op: str, width: int, attrs: dict[str, object]) -> Graph:
    graph = Graph()
    x = graph.add("input", attrs={"name": "x", "type": StreamType((width,))})
    graph.add("output", [graph.add(op, [x], attrs)], {"name": "y"})
    return graph


def run(graph: Graph, arch: Arch, x: np.ndarray) -> tuple[np.ndarray, int]:
    program = BACKEND.lower(graph, arch, ideal=False)
    result = BACKEND.simulate(program, {"x": x}, RunSettings())
    return result.outputs["y"], sum(result.stats.notes["saturations"].values())


def test_states_that_are_cut_off_are_counted_by_layer_and_an_error_where_strict() -> None:
    attrs = {"decay": Tensor(np.full(2, 0.5)), "pieces": (Piece(0, 2, 0, 1),)}
    program = BACKEND.lower(stream_graph("tile.state", 2, attrs), narrow_states(), ideal=False)
    x = {"x": np.full((1, 20, 2), 100.0)}
    counted = BACKEND.simulate(program, x, RunSettings()).stats.notes["saturations"]
    assert list(counted.values()) == [40]
    (layer,) = counted
    with pytest.raises(UserError, match=f"40 numbers did not fit their format(.|\\n)*layer '{layer}': 40"):
        BACKEND.simulate(program, x, RunSettings(strict=True))
    calm = BACKEND.simulate(program, {"x": np.full((1, 20, 2), 0.5)}, RunSettings(strict=True))
    assert calm.stats.notes["saturations"] == {}


@settings(max_examples=examples(25))
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 5))
def test_matrix_products_are_exact(seed: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    integers = rng.integers(-127, 128, (inputs, outputs))
    scale = np.float32(rng.uniform(0.01, 0.1, outputs)).astype(float)
    bias = rng.standard_normal(outputs)
    weight = Tensor(integers * scale, Quantization(8, tuple(scale)))
    attrs = {"weight": weight, "bias": Tensor(bias), "pieces": (Piece(0, inputs, 0, outputs),)}
    x = rng.standard_normal((2, 3, inputs)) * 10.0 ** rng.integers(-3, 4)
    y, _ = run(stream_graph("tile.matmul", inputs, attrs), ARCH, x)
    for sample in range(2):
        for step in range(3):
            vector, unit = block([f32(v) for v in x[sample, step]], ARCH.numbers.activation_bits)
            for n in range(outputs):
                total = sum(v * int(w) for v, w in zip(vector, integers[:, n], strict=True))
                assert y[sample, step, n] == f32(total * scale[n] * float(unit) + f32(bias[n]))


def fixed_element(value: complex, numbers: Numbers) -> tuple[int, int, Fraction]:
    """1 - a as integers of its halves with one unit."""
    (re, im), unit = block([1 - value.real, -value.imag], numbers.parameter_bits)
    return re, im, unit


def advance(state: list[int], decay: tuple[int, int, Fraction], drive: list[int], bits: int) -> list[int]:
    """x - round((1 - a) x) + v, each half limited."""
    re, im, unit = decay
    products = [re * state[0] - im * state[1], re * state[1] + im * state[0]]
    return [limit(x - even(p * unit) + v, bits) for x, p, v in zip(state, products, drive, strict=True)]


@pytest.mark.parametrize("arch", [ARCH, narrow_states()], ids=["wide", "narrow"])
@settings(max_examples=examples(20))
@given(seed=st.integers(0, 2**32))
def test_states_are_exact(arch: Arch, seed: int) -> None:
    """Complex states with drives of their own, fixed point."""
    rng, numbers = np.random.default_rng(seed), arch.numbers
    decay = rng.uniform(0.3, 0.999, 3) * np.exp(1j * rng.uniform(-3, 3, 3))
    attrs = {"decay": Tensor(decay), "pieces": (Piece(0, 3, 0, 1),)}
    x = rng.standard_normal((1, 12, 6)) * 10.0 ** rng.integers(-2, 2)
    y, outside = run(stream_graph("tile.state", 6, attrs), arch, x)
    unit, saturated = Fraction(1, 2**numbers.state_fraction_bits), 0
    for n in range(3):
        g = Fraction(float(gain(decay[n : n + 1])[0]))
        state, element = [0, 0], fixed_element(decay[n], numbers)
        for k in range(12):
            drive = [even(Fraction(f32(x[0, k, n + 3 * part])) / (unit * g)) for part in range(2)]
            state = advance(state, element, drive, numbers.state_bits)
            saturated += sum(abs(2 * s + 1) == 2**numbers.state_bits - 1 for s in state)
            for part in range(2):
                assert y[0, k, n + 3 * part] == f32(state[part] * unit * g)
    assert (outside == 0) or saturated


@settings(max_examples=examples(20))
@given(st.integers(0, 2**32), st.booleans())
def test_channel_systems_are_exact(seed: int, read_before: bool) -> None:
    """b u into fixed-point states, c x down the column, d u beside it."""
    rng, numbers = np.random.default_rng(seed), ARCH.numbers
    shape = (2, 3)
    decay = rng.uniform(0.3, 0.999, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    b, c = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(2))
    d = rng.standard_normal(2)
    numbers_by_name = {"decay": Tensor(decay), "b": Tensor(b), "c": Tensor(c), "d": Tensor(d)}
    attrs = {**numbers_by_name, "pieces": (Piece(0, 2, 0, 3),), "read_before": read_before}
    x = rng.standard_normal((1, 9, 2))
    graph = stream_graph("tile.ssm", 2, attrs)
    graph.attributes["schedule"] = {"form": "state in place"}
    y, _ = run(graph, ARCH, x)
    unit, bits = Fraction(1, 2**numbers.state_fraction_bits), numbers.parameter_bits
    for h in range(2):
        gains = [Fraction(float(g)) for g in gain(decay[h])]
        scaled = [[part / float(g) for part in (v.real, v.imag)] for v, g in zip(b[h], gains, strict=True)]
        drives = [block(v, bits) for v in scaled]
        halves = [v * float(g) for v, g in zip(c[h], gains, strict=True)]
        reads, read_unit = block([v.real for v in halves] + [v.imag for v in halves], bits)
        (through,), through_unit = block([d[h]], bits)
        states, elements = [[0, 0]] * 3, [fixed_element(a, numbers) for a in decay[h]]
        for k in range(9):
            vector, u_unit = block([f32(v) for v in x[0, k]], numbers.activation_bits)
            following = []
            for state, element, (integers, b_unit) in zip(states, elements, drives, strict=True):
                drive = [even(v * vector[h] * b_unit * u_unit / unit) for v in integers]
                following.append(advance(state, element, drive, numbers.state_bits))
            read = states if read_before else following
            total = sum(r * s[0] - i * s[1] for s, r, i in zip(read, reads[:3], reads[3:], strict=True))
            states = following
            value = float(total) * float(read_unit * unit) + float(vector[h] * u_unit) * float(through * through_unit)
            assert y[0, k, h] == f32(value)
