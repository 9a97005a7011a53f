"""Units of fixed-point states: exact where nothing is rounded, precise for states of any size, in every form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import samples
from backends.epochcore import BACKEND
from backends.epochcore.arch import Arch, arch_text, load_arch
from isa import Program
from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.ir import Graph, Piece, StreamType, Tensor, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.validation import relative_error
from ssmc.target import RunSettings
from tests.backends.epochcore import test_directions, test_forms, test_segments, test_shared_passes
from tests.backends.epochcore.test_costs import with_changes
from tests.examples import examples

SMALL = load_arch("epochcore-small")
NARROW = {"numbers__state_bits": 16, "numbers__state_fraction_bits": 13}  # room for four times what is expected
OPS = ["tile.ssm", "tile.state", "tile.recurrence"]


def layer(op: str, decay: Any, b: Any = 1.0, c: Any = 1.0, d: Any = 0.0, unit: Any = None, **flags: Any) -> Graph:
    """Two inputs, u and what decays are made of where they are streamed, and a layer of states; real parts then
    imaginary ones where they are complex."""
    g, shape = Graph(), decay.shape
    width = shape[0] if op == "tile.ssm" else decay.size * (1 + np.iscomplexobj(decay))
    u = g.add("input", [], {"name": "u", "type": StreamType((width,))}, name="u")
    if op == "tile.recurrence":
        a = g.add("input", [], {"name": "a", "type": StreamType((width,))}, name="a")
        attrs: dict[str, Any] = {"is_complex": np.iscomplexobj(decay)}
        operands = [a, u]
    else:
        operands, attrs = [u], {"decay": Tensor(decay), "pieces": (Piece(0, shape[0], 0, (*shape, 1)[1]),)}
        if op == "tile.ssm":
            attrs |= {"b": Tensor(b * np.ones(shape)), "c": Tensor(c * np.ones(shape))}
            attrs["d"] = Tensor(d * np.ones(shape[0]))
    y = g.add(op, operands, {**attrs, **flags, "unit": None if unit is None else Tensor(unit)}, name="x")
    g.add("output", [y], {"name": "y"})
    g.attributes["schedule"] = {"form": "state in place"} if op == "tile.ssm" else {}
    return g


def given_to(op: str, decay: Any, u: Any) -> dict[str, Any]:
    halves = np.concatenate([decay.real, decay.imag][: 1 + np.iscomplexobj(decay)], axis=-1)
    return {"u": u, **({"a": np.broadcast_to(halves, u.shape)} if op == "tile.recurrence" else {})}


def simulated(g: Graph, x: dict[str, Any], arch: Arch, options: str | None = None, data: Any = None) -> Any:
    """Outputs and numbers that did not fit; with `options`, after choose-units with them and (True: these) data."""
    if options is not None:
        context = Context(BACKEND.machine(arch, ideal=False), calibration=x if data is True else data)
        g = PassManager(f"choose-units{options}").run(g, context)
    result = BACKEND.simulate(BACKEND.lower(g, arch, ideal=False), x, RunSettings())
    return result.outputs["y"], sum(result.stats.notes["saturations"].values())


@settings(max_examples=examples(20), deadline=None)
@given(st.sampled_from(OPS), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_units_change_nothing_where_nothing_is_rounded(op: str, seed: int, is_complex: bool, wide: bool) -> None:
    """Dyadic numbers in states that hold all their digits: exact, whatever the units are."""
    arch = with_changes(SMALL, numbers__state_bits=36, numbers__state_fraction_bits=24, numbers__accumulator_bits=52)
    rng, shape = np.random.default_rng(seed), (2, 3) if op == "tile.ssm" else (5,)
    decay = rng.choice([0.25, 0.5, 0.75], shape) * (rng.choice([1, 1j, -1j], shape) if is_complex else 1)
    if op == "tile.state" and not wide:
        decay = np.full(shape, decay[0])
    b, c = (rng.integers(-4, 5, shape) * (rng.choice([1, 1j], shape) if is_complex else 1) for _ in range(2))
    unit = 2.0 ** rng.integers(-24, -18, shape)
    width = 2 if op == "tile.ssm" else 5 * (1 + is_complex)
    x = given_to(op, decay, rng.integers(-8, 9, (2, 6, width)).astype(float))
    expected = interpret(layer(op, decay, b, c, 1.0), x)["y"]
    for chosen in (None, unit):
        y, outside = simulated(layer(op, decay, b, c, 1.0, chosen), x, arch)
        np.testing.assert_array_equal(y, expected)
        assert outside == 0


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("numbers", ["ideal", "float32", "bfloat16", "float16"])
def test_floating_point_has_no_units(op: str, numbers: str) -> None:
    arch, ideal = SMALL if numbers == "ideal" else with_changes(SMALL, numbers__format=numbers), numbers == "ideal"
    decay = np.full((2, 3) if op == "tile.ssm" else (3,), 0.9)
    assert BACKEND.machine(arch, ideal=ideal).states is None
    one, other = (
        BACKEND.lower(layer(op, decay, unit=unit), arch, ideal=ideal) for unit in (None, 2.0**-9 * np.ones_like(decay))
    )
    assert one.sections == other.sections
    assert {name: array.tobytes() for name, array in one.data.items()} == {
        name: array.tobytes() for name, array in other.data.items()
    }


@pytest.mark.parametrize("size", [2.0**-14, 2.0**14])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_small_and_large_states_are_as_precise_as_others(op: str, is_complex: bool, size: float) -> None:
    """States of 16 bits. As the target scales them by itself, small ones vanish and large ones do not fit."""
    arch, rng = with_changes(SMALL, **NARROW), np.random.default_rng(0)
    shape = (2, 3) if op == "tile.ssm" else (5,)
    decay = rng.uniform(0.5, 0.95, shape) * (np.exp(1j * rng.uniform(-1, 1, shape)) if is_complex else 1)
    # sizes that differ from state to state as well
    each = size * 2.0 ** rng.integers(-4, 5, shape)
    b, c = each, 1 / each
    u = rng.standard_normal((2, 60, 2 if op == "tile.ssm" else 5 * (1 + is_complex)))
    x = given_to(op, decay, u if op == "tile.ssm" else u * np.tile(each, 1 + is_complex))
    g = layer(op, decay, b, c)
    expected = interpret(g, x)["y"]
    y, outside = simulated(g, x, arch, "", data=True)
    error = np.abs(y - expected).max((0, 1)) / np.abs(expected).max((0, 1))
    assert error.max() < 2e-3
    assert outside == 0
    before, outside = simulated(g, x, arch, "{by=off}")
    assert outside or relative_error(expected, before) > 0.02


def test_sums_without_decay_keep_their_digits() -> None:
    """Counters and totals: 1 / (1 - |a|) is infinite for them, and no gain for 16 bits."""
    arch, u = with_changes(SMALL, **NARROW), np.random.default_rng(0).uniform(0, 1, (2, 128, 2))
    g = layer("tile.ssm", np.ones((2, 1)))
    u[..., 0] = 1.0
    expected = interpret(g, {"u": u})["y"]
    y, _ = simulated(g, {"u": u}, arch, "", data=True)
    np.testing.assert_array_equal(y[..., 0], expected[..., 0])
    assert relative_error(expected, y) < 3e-3
    before, outside = simulated(g, {"u": u}, arch, "{by=off}")
    assert not before.any() and not outside
    _, outside = simulated(g, {"u": np.concatenate([u] * 9, axis=1)}, arch, "", data={"u": u})
    assert outside > 0  # more than there is room for


def squashed(op: str, seed: int, is_complex: bool, states: int = 3) -> tuple[Graph, int]:
    """states whose drive stays within +-1, of any size"""
    rng, shape = np.random.default_rng(seed), (2, states) if op == "tile.ssm" else (5,)
    size = 1 - 10.0 ** rng.uniform(-2, -0.3, shape)
    decay = size * (np.exp(1j * rng.uniform(-3, 3, shape)) if is_complex else 1)
    b = 10.0 ** rng.uniform(-5, 3, shape) * rng.choice([-1.0, 1.0], shape)
    g = layer(op, decay, b, 1 / b)
    u = g.operands("x")[0]
    assert u is not None
    g.connect("x", 0, g.add("unary", [u], {"fn": "tanh"}))
    return g, 2 if op == "tile.ssm" else 5 * (1 + is_complex)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(OPS[:2]), st.integers(0, 2**16), st.booleans(), st.sampled_from(["steady", "random"]))
def test_bounded_inputs_never_overflow(op: str, seed: int, is_complex: bool, how: str) -> None:
    g, width = squashed(op, seed, is_complex)
    rng, arch = np.random.default_rng(seed), with_changes(SMALL, **NARROW)
    steady = 50.0 * np.ones((2, 400, width)) * np.array([1, -1])[:, None, None]
    u = steady if how == "steady" else rng.choice([-50.0, 50.0], (2, 200, width))
    expected = interpret(g, {"u": u})["y"]
    for rounding in ("nearest", "truncate"):
        numbers = with_changes(arch, numbers__rounding=rounding)
        y, outside = simulated(g, {"u": u}, numbers, "{by=bound}")
        assert outside == 0
        assert relative_error(expected, y) < 0.3


def narrowed(arch: Arch) -> Arch:
    return with_changes(arch, **NARROW)


def smaller(g: Graph, size: float = 1e-5) -> Graph:
    """The same function with all states so much smaller."""
    for node in list(g.nodes("tile.ssm")):
        b, c = (node.op[name].array for name in ("b", "c"))
        g.set_op(node.name, node.op.with_attrs(b=Tensor(b * size), c=Tensor(c / size)))
    return g


def errors(g: Graph, arch: Arch, x: dict[str, Any], least: Any) -> list[float]:
    """Relative ones with and without units; both programs must be what `least` wants."""
    expected, found = interpret(g, x), []
    for options in ("", "{by=off}"):
        context = Context(BACKEND.machine(arch, ideal=False), calibration=x)
        program = BACKEND.lower(PassManager(f"choose-units{options}").run(g, context), arch, ideal=False)
        assert least(program)
        outputs = BACKEND.simulate(program, x, RunSettings()).outputs
        found.append(max(relative_error(expected[name], outputs[name]) for name in expected))
    return found


def code(program: Program) -> Any:
    return program.sections[0].code


@pytest.mark.parametrize("is_complex", [False, True])
def test_segments_have_units(is_complex: bool) -> None:
    shape = test_forms.Shape(channels=2, states=3, is_complex=is_complex)
    g = smaller(test_forms.graph(shape, {"form": "segmented", "segments": 3, "steps": 300}))
    x = test_forms.arrays(shape, 2, 300)
    with_units, without = errors(g, narrowed(test_segments.narrow()), x, lambda p: test_segments.segmented(p))
    assert with_units < 5e-3 and without > 0.2


@pytest.mark.parametrize("inputs", [0, 6])
def test_both_directions_together_have_units(inputs: int) -> None:
    arch = narrowed(with_changes(test_directions.SMALL, array__states_per_element=2, array__mac_depth=3))
    g = test_directions.graph(test_directions.Shape(channels=4, states=3, before=(False, False), inputs=inputs))
    if inputs:  # systems with matrices around them
        for node in list(g.nodes("tile.state")):
            drive, (read, _) = g.operand(node.name, 0).node, g.users(test_directions.Value(node.name))[0]
            for name, factor in ((drive, 1e-5), (read, 1e5)):
                op = g.op(name)
                bias = None if op["bias"] is None else Tensor(op["bias"].array * min(factor, 1.0))
                g.set_op(name, op.with_attrs(weight=Tensor(op["weight"].array * factor), bias=bias))
    else:
        smaller(g)
    g.attributes["schedule"] = {"directions": "together"}
    x = {"x": np.random.default_rng(1).standard_normal((2, 60, inputs or 4))}
    with_units, without = errors(g, arch, x, lambda p: True)
    assert with_units < 0.02 and without > 0.05


def test_shared_passes_have_units() -> None:
    g = smaller(test_shared_passes.systems(130, [3, 3], False, False))
    x = {"x": np.random.default_rng(1).standard_normal((1, 40, 130))}
    arch = narrowed(test_shared_passes.LARGE)
    with_units, without = errors(g, arch, x, lambda p: test_shared_passes.passes(p) == 3)
    assert with_units < 1e-3 and without > 0.05


def test_a_trap_where_a_column_has_no_scale() -> None:
    decay = np.full(3, 0.5)
    program = BACKEND.lower(layer("tile.recurrence", decay, unit=np.full(3, 2.0**-9)), SMALL, ideal=False)
    (preload,) = (ins for ins in code(program) if ins.mnemonic == "preload")
    assert preload["scaled"]
    (name,) = (name for name in program.data if name.endswith(".scale"))
    short = replace(program, data={**program.data, name: program.data[name][:2]})
    with pytest.raises(UserError, match="2 scales for 3 columns"):
        BACKEND.simulate(short, given_to("tile.recurrence", decay, np.ones((1, 4, 3))), RunSettings())


@pytest.mark.parametrize(
    ("numbers", "told", "became"),
    [
        ({"overflow": "saturate"}, "saturations", "cut off"),
        ({"overflow": "wrap"}, "wrapped", "wrapped round"),
        ({"overflow": "wrap", "format": "float16"}, "infinities", "became infinite"),
    ],
)
def test_what_overflows_is_told_by_what_became_of_it(numbers: dict[str, str], told: str, became: str) -> None:
    arch = with_changes(SMALL, **{f"numbers__{name}": value for name, value in numbers.items()})
    program = BACKEND.lower(layer("tile.state", np.full(2, 0.5)), arch, ideal=False)
    x = {"u": np.full((1, 8, 2), 6e4)}
    notes = BACKEND.simulate(program, x, RunSettings()).stats.notes
    assert {"saturations", "wrapped", "infinities"} & set(notes) == {told}
    assert notes[told]["x"] > 0
    with pytest.raises(UserError, match=f"did not fit their format, and (were )?{became}"):
        BACKEND.simulate(program, x, RunSettings(strict=True))


def test_a_trained_model_keeps_its_accuracy_in_narrow_states(tmp_path: Any) -> None:
    """events-watch: counters, totals, and states that follow the time between events."""
    sample = samples.load("events-watch")
    (tmp_path / "arch.yaml").write_text(arch_text(narrowed(load_arch("epochcore-128"))))
    made = compile_model(
        sample.model_path, "epochcore", arch=str(tmp_path / "arch.yaml"), calibration=sample.calibration, validate=False
    )
    assert made.compilation is not None
    assert {choice.source for choice in made.compilation.context.units} == {"calibration data"}
    few = {name: array[:100] for name, array in sample.test.items()}
    result = made.run(few)
    assert sample.accuracy(result.outputs) >= 0.93
    assert not result.stats.notes["saturations"]
