"""Floating-point formats, truncation and wrapping round, against Python's own fractions and other implementations."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, arch_text, load_arch, parse_arch
from backends.epochcore.floats import FORMATS, restored, rounded, stored
from backends.epochcore.formats import limited, mantissas
from isa import load, save
from ssmc.diagnostics import UserError
from ssmc.ir import Piece, Tensor
from ssmc.target import RunSettings
from tests.backends.epochcore.test_costs import with_changes
from tests.backends.epochcore.test_end_to_end import model
from tests.backends.epochcore.test_integers import stream_graph

ARCH = load_arch("epochcore-small")
NAMES = list(FORMATS)


def nearest(value: Fraction, name: str, truncate: bool) -> Fraction:
    """The number of a format next to `value`, of normal size or below."""
    form = FORMATS[name]
    exponent = form.smallest
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - form.bits)
    count = value / unit
    return (Fraction(int(count)) if truncate else Fraction(round(count))) * unit


@settings(max_examples=300)
@given(st.floats(-1e6, 1e6) | st.floats(-1e-4, 1e-4) | st.floats(-1e-37, 1e-37), st.sampled_from(NAMES), st.booleans())
def test_rounding_is_what_fractions_say(value: float, name: str, truncate: bool) -> None:
    found, outside = rounded(np.array([value]), name, truncate=truncate)
    expected = nearest(Fraction(value), name, truncate)
    if abs(expected) > Fraction(FORMATS[name].greatest):
        assert outside == 1 and abs(found[0]) == FORMATS[name].greatest
    else:
        assert outside == 0 and Fraction(float(found[0])) == expected


@given(st.lists(st.floats(width=64, allow_nan=False), min_size=1, max_size=5), st.sampled_from(["float32", "float16"]))
def test_numpy_rounds_so_too(values: list[float], name: str) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values).astype(name).astype(np.float64)
    np.testing.assert_array_equal(rounded(np.array(values), name, wrap=True)[0], expected)


@given(st.lists(st.floats(-1e38, 1e38), min_size=1, max_size=5), st.sampled_from(NAMES))
def test_a_program_holds_them_exactly(values: list[float], name: str) -> None:
    kept, _ = rounded(np.array(values), name)
    held = stored(np.array(values), name)
    assert held.itemsize == (4 if name == "float32" else 2)
    np.testing.assert_array_equal(restored(held).astype(np.float64), kept)


def test_wrapping_round_is_twos_complement() -> None:
    values, outside = limited(np.array([-9.0, -8.0, 7.0, 8.0, 100.0]), 4, wrap=True)
    assert values.tolist() == [7.0, -8.0, 7.0, -8.0, 4.0] and outside == 3


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=6), st.integers(2, 16))
def test_truncated_mantissas_are_floors(values: list[float], bits: int) -> None:
    integers, unit = mantissas(np.array(values), bits, -1, np.floor)
    assert [Fraction(i) for i in integers.tolist()] == [Fraction(v) / Fraction(float(unit[0])) // 1 for v in values]
    assert (-(2.0 ** (bits - 1)) <= integers).all() and (integers <= 2.0 ** (bits - 1) - 1).all()


def changed(**numbers: object) -> Arch:
    return with_changes(ARCH, **{f"numbers__{name}": value for name, value in numbers.items()})


@pytest.mark.parametrize("decay", ["one-minus", "plain"])
@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("format_, states", [("bfloat16", "float32"), ("float16", "float16"), ("bfloat16", None)])
def test_states_are_rounded_once_a_step(format_: str, states: str | None, rounding: str, decay: str) -> None:
    arch = changed(format=format_, state_format=states, rounding=rounding, decay=decay)
    rng, cut = np.random.default_rng(5), rounding == "truncate"
    a = rng.uniform(0.5, 0.999, 3)
    graph = stream_graph("tile.state", 3, {"decay": Tensor(a), "pieces": (Piece(0, 3, 0, 1),)})
    x = np.float32(rng.standard_normal((1, 9, 3)))
    y = BACKEND.simulate(BACKEND.lower(graph, arch, ideal=False), {"x": x}, RunSettings()).outputs["y"]
    for n in range(3):
        kept = nearest(Fraction(1 - a[n] if decay == "one-minus" else a[n]), format_, False)
        state = Fraction(0)
        for k in range(9):
            new = (state - kept * state if decay == "one-minus" else kept * state) + Fraction(float(x[0, k, n]))
            # the machine adds in float64, which is finer than any of the formats
            state = nearest(Fraction(float(new)), states or format_, cut)
            assert float(state) == pytest.approx(y[0, k, n], rel=2.0**-6 if decay == "plain" else 1e-12)


def test_channel_systems_in_float32_are_those_of_the_model() -> None:
    arch, ideal = changed(format="float32"), BACKEND.lower(model(), ARCH, ideal=True)
    program = BACKEND.lower(model(), arch, ideal=False)
    assert program.meta["numbers"] == "float32"
    x = {port.name: np.random.default_rng(1).standard_normal((2, 30, *port.shape)) for port in program.inputs}
    near, far = (
        BACKEND.simulate(BACKEND.lower(model(), changed(format=name), ideal=False), x, RunSettings()).outputs
        for name in ("float32", "bfloat16")
    )
    exact = BACKEND.simulate(ideal, x, RunSettings()).outputs
    for name, values in exact.items():
        size = np.abs(values).max()
        assert np.abs(near[name] - values).max() < 1e-5 * size
        assert 1e-5 * size < np.abs(far[name] - values).max() < 0.3 * size


@pytest.mark.parametrize("format_", NAMES)
def test_blocks_do_not_matter_and_programs_round_trip(format_: str, tmp_path: Path) -> None:
    program = BACKEND.lower(model(), changed(format=format_, rounding="truncate"), ideal=False)
    save(program, tmp_path / "p.ssmx")
    again = load(tmp_path / "p.ssmx")
    x = {port.name: np.random.default_rng(1).standard_normal((3, 40, *port.shape)) for port in program.inputs}
    whole = BACKEND.simulate(program, x, RunSettings()).outputs
    for block in (1, 7):
        for name, values in BACKEND.simulate(again, x, RunSettings(block=block)).outputs.items():
            np.testing.assert_array_equal(values, whole[name])


def test_what_is_too_large_is_counted_and_an_error_where_strict() -> None:
    graph = stream_graph("tile.state", 2, {"decay": Tensor(np.full(2, 0.99)), "pieces": (Piece(0, 2, 0, 1),)})
    x = {"x": np.full((1, 20, 2), 6e4)}
    program = BACKEND.lower(graph, changed(format="float16"), ideal=False)
    result = BACKEND.simulate(program, x, RunSettings())
    assert sum(result.stats.notes["saturations"].values()) == 38  # the first step fits
    assert result.outputs["y"].max() == 65504
    with pytest.raises(UserError, match="38 numbers did not fit"):
        BACKEND.simulate(program, x, RunSettings(strict=True))
    wrapped = BACKEND.lower(graph, changed(format="float16", overflow="wrap"), ideal=False)
    assert np.isinf(BACKEND.simulate(wrapped, x, RunSettings()).outputs["y"]).any()


def test_a_decay_near_one_needs_its_distance() -> None:
    """1 - a = 5e-5, as in Path-X: bfloat16 has no a between 0.996 and 1, and the state does not decay."""
    a, steps = 1 - 5e-5, 2000
    graph = stream_graph("tile.state", 1, {"decay": Tensor(np.array([a])), "pieces": (Piece(0, 1, 0, 1),)})
    x = {"x": np.ones((1, steps, 1))}
    exact = (1 - a**steps) / (1 - a)
    error = {}
    for decay in ("plain", "one-minus"):
        arch = changed(format="bfloat16", state_format="float32", decay=decay)
        y = BACKEND.simulate(BACKEND.lower(graph, arch, ideal=False), x, RunSettings()).outputs["y"]
        error[decay] = abs(y[0, -1, 0] / exact - 1)
    assert error["plain"] > 0.04 and error["one-minus"] < 0.001


def test_fixed_and_floating_do_not_mix() -> None:
    text = arch_text(ARCH)
    with pytest.raises(UserError, match="both be fixed, or both floating point"):
        parse_arch(
            text.replace("format: fixed", "format: float16").replace("state_format: null", "state_format: fixed")
        )
