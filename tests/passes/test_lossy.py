"""share-decays and quantize: what is lost is small where it should be, measured, and within its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, interpret
from ssmc.passes import Context, PassManager
from ssmc.passes.grid import column_grid, decay_grid, rate_grid, row_grid
from ssmc.passes.share_decays import distinct
from ssmc.statespace import StateSpace, simulate
from tests.examples import examples

from .graphs import MACHINES, Model, asynchronous, build, linear, s4d, s4d_real, s5, stateful, system


def systems(graph: Graph) -> list[StateSpace]:
    return [node.op["system"] for node in graph.nodes("ssm")]


def model(value: StateSpace) -> Graph:
    m = Model(0)
    m.graph = Graph("one")
    m.h = value.inputs
    m.x = m.input("u", m.graph_type())
    m.x = m.ssm(value)
    m.output(m.x, "y")
    return m.graph


def s4d_lin(groups: int, states: int, seed: int = 0) -> StateSpace:
    rng = np.random.default_rng(seed)
    a = -0.5 + 1j * np.pi * np.arange(states) + np.zeros((groups, 1))
    delta = np.exp(rng.uniform(np.log(0.005), np.log(0.1), (groups, 1)))
    c = rng.standard_normal((groups, 1, states)) + 1j * rng.standard_normal((groups, 1, states))
    return StateSpace(a, np.ones((groups, states, 1)), c, np.ones((groups, 1, 1)), delta, halved=True)


def test_shared_decays_are_few_and_the_refit_helps() -> None:
    graph = PassManager("discretize").run(model(s4d_lin(8, 8)), Context())
    errors = {}
    for refit in ("true", "false"):
        context = Context(calibration={"u": np.random.default_rng(1).standard_normal((4, 200, 8))})
        result = PassManager(f"share-decays{{levels=2,refit={refit}}}").run(graph, context)
        assert distinct(systems(result)[0]) == 2
        assert "8 decays became 2" in context.notes[0].text
        errors[refit] = context.losses[0].outputs["y"]
    assert errors["true"] < errors["false"]


def test_enough_levels_change_nothing() -> None:
    graph = build(3, [s4d, s5])
    assert PassManager("share-decays{levels=99}").run(graph, Context()) is graph
    assert PassManager("share-decays").run(graph, Context()) is graph
    machine = replace(MACHINES["crossbar"], decay_levels=1)
    assert PassManager("share-decays").run(graph, Context(machine, ideal=True)) is graph
    shared = PassManager("share-decays").run(graph, Context(machine))
    assert [distinct(value) for value in systems(shared)] == [1, 1]


def test_levels_after_levels_come_closer() -> None:
    graph = PassManager("discretize").run(model(s4d_lin(6, 4)), Context())
    lost = []
    for levels in (1, 2, 4, 6):
        context = Context()
        PassManager(f"share-decays{{levels={levels}}}").run(graph, context)
        lost.append(context.losses[0].layers[0].bound if context.losses else 0.0)
    assert all(isinstance(bound, float) for bound in lost)
    assert lost[0] > lost[-1] == 0.0  # type: ignore[operator]


def test_a_layer_that_does_not_decay_keeps_its_states() -> None:
    value = system(np.random.default_rng(0), 1, 2, 1, 1, complex_=False)
    context = Context()
    graph = model(replace(value, A=np.array([[0.5, 1.0]])))
    assert PassManager("share-decays{levels=1}").run(graph, context) is graph
    assert context.notes[0].node == "ssm" and "do not decay" in context.notes[0].text


def test_a_dense_layer_keeps_its_states_and_a_continuous_one_is_named() -> None:
    value = system(np.random.default_rng(0), 1, 2, 1, 1, complex_=False, dense=True)
    context = Context()
    graph = model(value)
    assert PassManager("share-decays{levels=1}").run(graph, context) is graph
    assert "dense" in context.notes[0].text
    with pytest.raises(UserError, match="cannot be shared") as caught:
        PassManager("share-decays{levels=1}").run(model(s4d_lin(2, 3)), Context())
    assert "ssm_1" in caught.value.where and "discretize" in str(caught.value)


def test_events_are_refitted_at_their_own_gaps() -> None:
    graph = build(1, [asynchronous])
    width = graph.node("u").types[0].shape[0]  # type: ignore[union-attr,index]
    rng = np.random.default_rng(0)
    data = {"u": rng.standard_normal((4, 30, width)), "dt": rng.exponential(0.3, (4, 30))}
    near, unit = Context(calibration=data), Context()
    results = [PassManager("share-decays{levels=1}").run(graph, context) for context in (near, unit)]
    assert not np.array_equal(systems(results[0])[0].C, systems(results[1])[0].C)
    assert near.losses[0].layers[0].bound is None
    assert "elapsed times" in near.losses[0].layers[0].note


@given(st.integers(0, 2**16), st.sampled_from([s4d, s4d_real, s5]), st.integers(3, 8))
@settings(max_examples=examples(25), deadline=None)
def test_the_bound_holds_for_every_input(seed: int, layer: object, bits: int) -> None:
    graph = build(seed, [layer], head="none")  # type: ignore[list-item]
    context = Context()
    result = PassManager(f"share-decays{{levels=1}},quantize{{weights={bits},decays={bits}}}").run(graph, context)
    (old,), (new,) = systems(graph), systems(result)
    bound = sum(report.layers[0].bound or 0.0 for report in context.losses)
    rng = np.random.default_rng(seed)
    for u in (np.sign(rng.standard_normal((4, 40, old.inputs))), np.ones((1, 40, old.inputs))):
        found = np.abs(simulate(old, u)[0] - simulate(new, u)[0]).max()
        assert found <= bound * (1 + 1e-6) + 1e-12


# -- quantize --------------------------------------------------------------------------------------------

matrices = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**16), st.booleans())


@given(matrices, st.integers(2, 12))
def test_columns_lie_on_their_grids_and_stay_there(drawn: tuple[int, int, int, bool], bits: int) -> None:
    rows, cols, seed, is_complex = drawn
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, cols)) + (1j * rng.standard_normal((rows, cols)) if is_complex else 0)
    w[:, 0] = 0
    for grid, axis in ((column_grid, 0), (row_grid, 1)):
        tensor = grid(w, bits)
        scale = np.asarray(tensor.quantization.scale)  # type: ignore[union-attr]
        scale = scale[None, :] if axis == 0 else scale[:, None]
        integers = tensor.integers()
        np.testing.assert_allclose(integers * scale, tensor.array, rtol=1e-15)
        assert max(np.abs(integers.real).max(), np.abs(np.imag(integers)).max()) <= 2 ** (bits - 1) - 1
        part = np.maximum(np.abs((tensor.array - w).real), np.abs((tensor.array - w).imag))
        assert (part <= scale / 2 * (1 + 1e-12)).all()
        np.testing.assert_allclose(grid(tensor.array, bits).array, tensor.array, rtol=1e-14)
    assert column_grid(w, None).quantization is None


@given(st.integers(0, 2**16), st.integers(4, 24), st.booleans())
def test_decays_keep_their_distance_from_one(seed: int, bits: int, is_complex: bool) -> None:
    rng = np.random.default_rng(seed)
    lost = np.exp(rng.uniform(-14, 0, 50))
    a = (1 - lost) * (np.exp(1j * rng.uniform(-3, 3, 50)) if is_complex else rng.choice([-1, 1], 50))
    found = decay_grid(a, bits)
    assert (np.abs(found) < 1).all()
    steps = (1 - np.abs(found)) * 2**bits
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert (np.abs(np.abs(found) - np.abs(a)) <= 2.0**-bits * (1 + 1e-9)).all()
    turned = np.angle(found[np.abs(found) > 0] / a[np.abs(found) > 0])
    assert (np.abs(turned) <= np.pi * 2.0**-bits + 1e-9).all()
    assert decay_grid(np.array([0.0, 1.0, 1.5, -2.0]), bits).tolist() == [0.0, 1.0, 1.5, -2.0]
    rates = rate_grid(-lost + (1j * rng.standard_normal(50) if is_complex else 0), bits)
    assert (rates.real < 0).all()


@pytest.mark.parametrize("machine", ["crossbar", "systolic", "digital"])
def test_the_same_numbers_before_and_after_tiling(machine: str) -> None:
    """Rounding systems and rounding the tiles that they become is one thing."""
    for layers in ([s4d, linear], [s5, linear], [s4d_real, s5], [stateful, linear]):
        graph = PassManager("diagonalize").run(build(7, layers), Context())
        results = [
            PassManager(text).run(graph, Context(MACHINES[machine]))
            for text in ("quantize{weights=4,decays=10},tile", "tile,quantize{weights=4,decays=10}")
        ]
        for one, other in zip(
            *(list(result.nodes("tile.matmul", "tile.ssm", "tile.state")) for result in results), strict=True
        ):
            assert one.name == other.name
            for name in ("weight", "decay", "b", "c"):
                if name in one.op.attrs:
                    first, second = one.op[name], other.op[name]
                    np.testing.assert_allclose(first.array, second.array, rtol=1e-12, atol=1e-14)


def test_quantised_matmuls_are_integers_times_scales() -> None:
    graph = build(3, [linear, linear])
    result = PassManager("quantize{weights=8}").run(graph, Context())
    for node in result.nodes("linear"):
        scale = np.asarray(node.op["weight"].quantization.scale)
        np.testing.assert_array_equal(node.op["weight"].integers() * scale, node.op["weight"].array)


def test_widths_come_from_the_machine_unless_it_is_ideal() -> None:
    graph = build(3, [s4d, linear])
    assert PassManager("quantize").run(graph, Context(MACHINES["digital"])) is graph
    machine = replace(MACHINES["digital"], weight_bits=6, state_parameter_bits=12)
    assert PassManager("quantize").run(graph, Context(machine, ideal=True)) is graph
    context = Context(machine)
    result = PassManager("quantize").run(graph, context)
    assert next(result.nodes("linear")).op["weight"].quantization.bits == 6
    assert next(result.nodes("ssm")).op["weight_bits"] == 6
    assert "KiB in 6 bits" in context.notes[0].text


def test_many_bits_lose_little() -> None:
    graph = build(9, [linear, s4d, s5, linear])
    errors = []
    for bits in (4, 8, 16):
        context = Context()
        PassManager(f"quantize{{weights={bits},decays={bits + 8}}}").run(graph, context)
        errors.append(context.losses[0].outputs["y"])
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3


def test_a_tolerance_is_held() -> None:
    graph = build(9, [linear, s4d, s5, linear])
    assert PassManager("quantize{weights=16,tolerance=0.01}").run(graph, Context()) is not None
    with pytest.raises(UserError, match="broke its promise") as caught:
        PassManager("quantize{weights=2,tolerance=0.001}").run(graph, Context())
    assert "node 'linear'" in caught.value.where
    assert interpret(graph, {"u": np.zeros((1, 2, graph.node("u").types[0].shape[0]))})  # type: ignore[union-attr,index]
