"""choose-units: how far states go, followed step by step; what the units leave of it; what is left to the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.ir import ConstantType, Graph, Piece, StreamType, Tensor, Value, interpret
from ssmc.ir.ops import tile
from ssmc.ir.parse import parse
from ssmc.ir.text import constants, print_graph
from ssmc.passes import Context, FixedPoint, Machine, PassManager, StateBank
from ssmc.passes.state_reach import bounded, fill, growth, seen, steady

FORM = FixedPoint(16, 14)
MACHINE = Machine("fixed", 8, 8, None, 1, (StateBank("pe", fused=True),), states=FORM)


def layer(op: str, seed: int, *, is_complex: bool, squashed: bool = False, start: bool = False, **flags: Any) -> Graph:
    """input (-> tanh) -> states of widely different sizes -> output"""
    rng, g = np.random.default_rng(seed), Graph()
    shape = (2, 3) if op == "tile.ssm" else (6,)
    parts, width = 1 + is_complex, 2 if op == "tile.ssm" else 6 * (1 + is_complex)
    u = g.add("input", [], {"name": "u", "type": StreamType((width,))}, name="u")
    u = g.add("unary", [u], {"fn": "tanh"}) if squashed else u
    a = rng.uniform(0.2, 0.97, shape) * (np.exp(1j * rng.uniform(-3, 3, shape)) if is_complex else 1)
    x0 = g.add("constant", [], {"value": Tensor(rng.uniform(-1, 1, 6 * parts))}) if start else None
    if op == "tile.recurrence":
        decay = g.add("constant", [], {"value": Tensor(np.concatenate([a.real, a.imag][:parts]))}, name="a")
        y = g.add(op, [decay, u, x0], {"is_complex": is_complex, **flags}, name="x")
    elif op == "tile.state":
        y = g.add(op, [u, None, x0], {"decay": Tensor(a), "pieces": (Piece(0, 6, 0, 1),), **flags}, name="x")
    else:
        b, c = (10.0 ** rng.uniform(-4, 1, shape) * rng.choice([-1, 1, 1j][: 2 + is_complex], shape) for _ in range(2))
        values = {"decay": Tensor(a), "b": Tensor(b), "c": Tensor(c), "d": Tensor(rng.standard_normal(2))}
        y = g.add(op, [u, x0], {**values, "pieces": (Piece(0, 2, 0, 3),), **flags}, name="x")
    g.add("output", [y], {"name": "y"})
    return g


def chosen(g: Graph, data: dict[str, Any] | None = None, options: str = "", **more: Any) -> tuple[Any, Context]:
    """The units, and what the pass reports."""
    context = Context(MACHINE, calibration=data, **more)
    out = PassManager(f"choose-units{options}").run(g, context)
    unit = out.op("x")["unit"]
    return None if unit is None else unit.array, context


def followed(g: Graph, u: Any) -> Any:
    """The largest half that each state of the layer reaches, by a loop over steps and states."""
    op, name = g.op("x"), g.op("x").name
    u = np.tanh(u) if "tanh" in print_graph(g) else u
    u = u[:, ::-1] if op["reverse"] else u
    paired = op["is_complex"] if name == "tile.recurrence" else op["decay"].is_complex
    a = g.op("a")["value"].array if name == "tile.recurrence" else op["decay"].array
    a = a[:6] + 1j * a[6:] if name == "tile.recurrence" and paired else a
    start = g.operands("x")[-1] if isinstance(g.type(g.operands("x")[-1]), ConstantType) else None
    given = np.zeros(12) if start is None else np.append(g.op(start.node)["value"].array, np.zeros(6))
    most = np.zeros(6)
    for sample in u:
        for n in range(6):
            x = complex(given[n], given[n + 6] * paired)
            most[n] = max(most[n], abs(x.real), abs(x.imag))
            for row in sample:
                if name == "tile.ssm":
                    v = op["b"].array.ravel()[n] * row[n // 3]
                else:
                    v = row[n] + 1j * row[n + 6] if paired else row[n]
                x = (a.ravel()[n] + v * bool(op.get("liquid"))) * x + v
                most[n] = max(most[n], abs(x.real), abs(x.imag))
    return most


layers = st.builds(
    lambda op, seed, is_complex, **flags: layer(op, seed, is_complex=is_complex, **flags),
    st.sampled_from(["tile.ssm", "tile.state", "tile.recurrence"]),
    st.integers(0, 2**16),
    is_complex=st.booleans(),
    start=st.booleans(),
    squashed=st.booleans(),
    reverse=st.booleans(),
)


@settings(max_examples=30, deadline=None)
@given(layers, st.integers(0, 2**16))
def test_each_state_has_the_finest_unit_that_leaves_its_room(g: Graph, seed: int) -> None:
    width = g.type(Value("u")).shape[0]
    u = np.random.default_rng(seed).standard_normal((2, 30, width)) * 10.0 ** (seed % 7 - 3)
    unit, context = chosen(g, {"u": u})
    peaks, top = followed(g, u), 2.0**15 - 1
    np.testing.assert_allclose(seen(g, {"u": u}).peaks["x"].ravel(), peaks, rtol=1e-12)
    assert (np.frexp(unit)[0] == 0.5).all()
    bound = bounded(g).get("x")
    fits, half = unit.ravel() * top >= FORM.room * peaks, unit.ravel() / 2 * top < FORM.room * peaks * (1 + 1e-12)
    if bound is None or not np.isfinite(bound.most).any():
        assert fits.all() and half.all()
    else:
        assert (fits | (unit.ravel() * top >= bound.most.ravel())).all() and half.all()
    (told,) = context.units
    assert told.node == "x" and told.finest == unit.min() and told.coarsest == unit.max()


def test_states_of_events_decay_by_the_time_that_passes() -> None:
    g, rates = Graph(), np.array([-0.1, -1.0 + 2j])
    u = g.add("input", [], {"name": "u", "type": StreamType((4,))})
    dt = g.add("input", [], {"name": "dt", "type": StreamType(()), "role": "dt"})
    attrs = {"decay": Tensor(rates), "asynchronous": True, "pieces": (Piece(0, 2, 0, 1),)}
    g.add("output", [g.add("tile.state", [u, dt], attrs, name="x")], {"name": "y"})
    gaps = np.random.default_rng(0).exponential(1.0, (2, 9))
    reach = seen(g, {"u": np.ones((2, 9, 4)), "dt": gaps})
    decays = np.exp(rates.real * gaps[..., None])
    np.testing.assert_allclose(reach.sizes["x"], decays.mean((0, 1)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("is_complex", [False, True])
def test_liquid_states_are_followed_as_they_are_stepped(is_complex: bool, reverse: bool) -> None:
    g = layer("tile.ssm", 3, is_complex=is_complex, liquid=True, reverse=reverse)
    u = 0.05 * np.random.default_rng(0).standard_normal((2, 30, 2))
    found, op = seen(g, {"u": u}), g.op("x")
    np.testing.assert_allclose(found.peaks["x"].ravel(), followed(g, u), rtol=1e-12)
    decays = np.abs(op["decay"].array + op["b"].array * u[..., None])
    np.testing.assert_allclose(found.sizes["x"], np.sqrt((decays**2).mean((0, 1))), rtol=1e-9)
    driven = seen(g, {"u": u}, peaks=False)
    assert not driven.peaks and np.array_equal(driven.sizes["x"], found.sizes["x"])
    assert np.array_equal(driven.drives["x"], found.drives["x"])


def test_a_state_that_starts_in_a_corner_turns_into_either_half() -> None:
    """Halves of 1 and 1 are a number of size sqrt(2), all of it in one half an eighth of a turn later."""
    g = Graph()
    u = g.add("unary", [g.add("input", [], {"name": "u", "type": StreamType((2,))})], {"fn": "tanh"})
    small = g.add("constant", [], {"value": Tensor(np.full(2, 1e-3))})
    v = g.add("binary", [u, small], {"fn": "mul"})
    x0 = g.add("constant", [], {"value": Tensor(np.ones(2))})
    attrs = {"decay": Tensor(np.array([0.9 * np.exp(1j * np.pi / 4)])), "pieces": (Piece(0, 1, 0, 1),)}
    g.add("output", [g.add("tile.state", [v, None, x0], attrs, name="x")], {"name": "y"})
    (peak,) = seen(g, {"u": np.zeros((1, 3, 2))}).peaks["x"]
    assert peak == pytest.approx(0.9 * 2**0.5) and peak <= bounded(g)["x"].most < 1.5


def test_steps_that_are_not_looked_at_count_for_states_that_go_on() -> None:
    """A steady drive makes as many times more of a total as there are more steps than were looked at."""
    g = Graph()
    v = g.add("input", [], {"name": "u", "type": StreamType((2,))})
    attrs = {"decay": Tensor(np.array([1.0, 0.5])), "pieces": (Piece(0, 2, 0, 1),)}
    g.add("output", [g.add("tile.state", [v], attrs, name="x")], {"name": "y"})
    data = {"u": np.ones((1, 640, 2))}
    assert np.array_equal(chosen(g, data, "{steps=64}")[0], chosen(g, data)[0])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["tile.ssm", "tile.state"]), st.integers(0, 2**16), st.booleans(), st.booleans(), st.booleans())
def test_no_input_leaves_a_bound(op: str, seed: int, is_complex: bool, start: bool, worst: bool) -> None:
    g, rng = layer(op, seed, is_complex=is_complex, squashed=True, start=start), np.random.default_rng(seed)
    width = g.type(Value("u")).shape[0]
    u = rng.choice([-50.0, 50.0], (1 if worst else 4, 300, width))
    if worst:  # a steady drive is the worst of real decays above zero
        u[:] = 50.0
    bound, peaks = bounded(g)["x"], followed(g, u)
    assert (peaks <= bound.most.ravel() * (1 + 1e-9)).all()
    if worst and not is_complex and not start:
        assert (peaks >= 0.99 * bound.most.ravel()).all()
    unit, context = chosen(g, options="{by=bound}")
    assert (unit.ravel() * (2**15 - 1) > bound.most.ravel()).all()
    assert (unit.ravel() * 2**15 < 3.1 * bound.most.ravel()).all()
    assert context.units[0].source == "bound"


@pytest.mark.parametrize("liquid", [False, True])
@pytest.mark.parametrize("turn", [0.0, 0.3, 3.1])
def test_without_data_states_have_room_for_steady_and_random_drives_and_no_bits_to_spare(
    liquid: bool, turn: float
) -> None:
    """By their l1 norm states that turn would be expected up to 15 times as far as they go."""
    rng, steps = np.random.default_rng(1), 512
    a = rng.uniform(0.95, 0.99, (2, 3)) * np.exp(1j * turn)
    values = {
        "decay": Tensor(a),
        "b": Tensor(0.002 * np.ones((2, 3), complex)),
        "c": Tensor(a),
        "d": Tensor(a[:, 0].real),
    }
    g = Graph()
    u = g.add("input", [], {"name": "u", "type": StreamType((2,))}, name="u")
    y = g.add("tile.ssm", [u], {**values, "pieces": (Piece(0, 2, 0, 3),), "liquid": liquid}, name="x")
    g.add("output", [y], {"name": "y"})
    drawn = rng.standard_normal((2, 22, 2))
    expected = seen(g, {"u": drawn}, peaks=False).expected(steps)["x"].ravel()
    top = np.abs(drawn).max((0, 1))
    inputs = [rng.standard_normal((2, steps, 2)), np.ones((1, steps, 2)) * top, -np.ones((1, steps, 2)) * top]
    reached = np.maximum.reduce([followed(g, u) for u in inputs])
    assert (reached <= 1.05 * expected).all() and (expected <= 4 * reached).all()


@given(st.complex_numbers(max_magnitude=1), st.integers(1, 60))
def test_a_steady_drive_makes_no_more_of_a_state(decay: complex, steps: int) -> None:
    sums = np.cumsum(np.array(decay) ** np.arange(steps))
    assert np.abs(sums).max() <= steady(np.array(decay), steps) * (1 + 1e-9)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("flags", [{}, {"liquid": True}, {"reverse": True, "read_before": True}])
def test_channels_are_followed_some_after_the_others(
    is_complex: bool, flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    g, u = layer("tile.ssm", 9, is_complex=is_complex, start=True, **flags), np.random.default_rng(1)
    x = {"u": u.uniform(-0.5, 0.5, (2, 7, 2))}
    whole, reach = interpret(g, x)["y"], seen(g, x)
    monkeypatch.setattr(tile, "AT_ONCE", 1)
    assert np.array_equal(interpret(g, x)["y"], whole)
    assert np.array_equal(seen(g, x).sizes["x"], reach.sizes["x"])
    a, b, c, d = (g.op("x")[name].array for name in ("decay", "b", "c", "d"))
    start = g.op(g.operand("x", 1).node)["value"].array
    halves = start.reshape(-1, 2, 3)
    state = np.repeat((halves[0] + 1j * halves[1] if is_complex else halves[0])[None], 2, 0)
    steps = range(7)[::-1] if flags.get("reverse") else range(7)
    for k in steps:
        v = b * x["u"][:, k, :, None]
        after = (a + v if flags.get("liquid") else a) * state + v
        y = (c * (state if flags.get("read_before") else after)).sum(-1).real + d * x["u"][:, k]
        np.testing.assert_allclose(whole[:, k], y, rtol=1e-12, atol=1e-12)
        state = after


def test_what_nothing_is_known_of_is_the_targets() -> None:
    """No bound on the input; by request; no fixed point; ideal programs."""
    g = layer("tile.state", 0, is_complex=False)
    assert chosen(g, options="{by=bound}")[0] is None
    assert chosen(g, {"u": np.ones((1, 3, 6))}, "{by=off}")[0] is None
    with_units = PassManager("choose-units").run(g, Context(MACHINE))
    assert with_units.op("x")["unit"] is not None
    off = PassManager("choose-units{by=off}").run(with_units, Context(MACHINE))
    assert print_graph(off) == print_graph(g)
    for context in (Context(MACHINE, ideal=True), Context(), Context(Machine("float", 8, 8, None, 1, ()))):
        assert PassManager("choose-units").run(g, context) is g


def test_units_are_part_of_the_text() -> None:
    g = PassManager("choose-units").run(layer("tile.ssm", 0, is_complex=True), Context(MACHINE))
    assert "unit" in print_graph(g)
    assert print_graph(parse(print_graph(g), constants(g))) == print_graph(g)


def test_without_data_a_state_that_never_decays_counts_a_usual_sequence() -> None:
    g = Graph()
    one = g.add("input", [], {"name": "u", "type": StreamType((1,))})
    one = g.add("binary", [one, g.add("constant", [], {"value": Tensor(np.zeros(1))})], {"fn": "equal"})
    values = {"decay": Tensor(np.ones((1, 1))), "b": Tensor(np.ones((1, 1))), "c": Tensor(np.ones((1, 1)))}
    y = g.add("tile.ssm", [one], {**values, "d": Tensor(np.zeros(1)), "pieces": (Piece(0, 1, 0, 1),)}, name="x")
    g.add("output", [y], {"name": "y"})
    assert bounded(g)["x"].most == np.inf
    data = {"u": np.zeros((1, 100, 1))}
    unit, _ = chosen(g, data)
    assert unit[0, 0] * 2**15 == 256  # room for twice as many
    unit, _ = chosen(g, data, "{steps=64}")  # what is cut off goes on as it began
    assert unit[0, 0] * 2**15 == 256


@given(st.floats(0, 1), st.integers(1, 60))
def test_growth_is_the_sum_of_powers(size: float, steps: int) -> None:
    assert growth(np.array(size), steps) == pytest.approx(sum(size**k for k in range(steps)), rel=1e-6)


def test_growth_without_end() -> None:
    assert growth(np.array([0.0, 0.5, 0.75, 1.0, 2.0]), np.inf).tolist() == [1, 2, 4, np.inf, np.inf]


def test_states_that_never_move_take_after_their_neighbours() -> None:
    assert fill(np.array([[3.0, 0.0, 5.0], [0.0, 0.0, 0.0]])).tolist() == [[3, 3, 5], [5, 5, 5]]
    assert fill(np.array([0.0, 2.0])).tolist() == [2, 2]
    assert fill(np.zeros(2)).tolist() == [1, 1]


def test_a_unit_for_every_state() -> None:
    with pytest.raises(ValueError, match="'unit' has the shape"):
        layer("tile.state", 0, is_complex=True, unit=Tensor(np.ones(12)))


def test_the_interpreter_shows_every_node_with_its_operands() -> None:
    g, found = layer("tile.state", 0, is_complex=False), {}
    u = np.ones((1, 4, 6))
    outputs = interpret(
        g, {"u": u}, watch=lambda node, operands, results: found.update({node.name: (operands, results)})
    )
    np.testing.assert_array_equal(found["x"][0][0], u)
    np.testing.assert_array_equal(found["x"][1][0], outputs["y"])


def test_what_never_decays_is_told_and_the_last_choice_counts() -> None:
    g = layer("tile.state", 0, is_complex=False)
    assert not chosen(g, {"u": np.ones((1, 3, 6))})[1].notes
    g.set_op("x", g.op("x").with_attrs(decay=Tensor(np.array([0.5, 0.5, 1.0, 0.5, 0.5, 0.5]))))
    _, context = chosen(g, {"u": np.ones((1, 40, 6))})
    (note,) = context.notes
    assert note.node == "x" and "what 40 steps make of them" in note.text
    PassManager("choose-units,choose-units{by=off}").run(g, context)
    assert not context.units
