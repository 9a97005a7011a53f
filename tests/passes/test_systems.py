"""discretize, diagonalize, halve-conjugates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmc import statespace
from ssmc.diagnostics import UserError
from ssmc.ir import Graph, SequenceType, Value, interpret
from ssmc.passes import Context, PassManager
from ssmc.statespace import StateSpace

from .graphs import MACHINES, Model, dense_groups, paired, shift_register, system


def only(graph: Graph) -> StateSpace:
    (node,) = graph.nodes("ssm")
    value: StateSpace = node.op["system"]
    return value


def continuous(m: Model) -> StateSpace:
    value = system(m.rng, m.h, 2, 1, 1)
    return replace(value, A=-0.5 + 1j * value.A.imag, delta=np.full((m.h, 1), 0.1))


@pytest.mark.parametrize("method", ["zoh", "bilinear", "dirac", "euler"])
def test_discretize_by_every_method(method: str) -> None:
    m = Model(0)
    value = continuous(m)
    m.x = m.ssm(value)
    m.output(m.x, "y")
    result = PassManager(f"discretize{{method={method}}}").run(m.graph, Context())
    expected = statespace.discretize(value, method)  # type: ignore[arg-type]
    assert only(result).discrete
    np.testing.assert_array_equal(only(result).A, expected.A)
    np.testing.assert_array_equal(only(result).B, expected.B)


def test_discretize_by_elapsed_time() -> None:
    m = Model(0)
    m.x = m.ssm(continuous(m))
    m.output(m.x, "y")
    with pytest.raises(UserError, match="no input of the model gives it"):
        PassManager("discretize{method=async}").run(m.graph, Context())
    m.dt()
    result = PassManager("discretize{method=async}").run(m.graph, Context())
    assert only(result).asynchronous
    u, dt = m.rng.standard_normal((1, 5, m.h)), m.rng.uniform(0.1, 1, (1, 5))
    (node,) = result.nodes("ssm")
    expected, _ = statespace.simulate(node.op["system"], u, dt=dt)
    np.testing.assert_allclose(interpret(result, {"u": u, "dt": dt})["y"], expected)


def test_a_pole_at_infinity_is_told() -> None:
    m = Model(0)
    m.x = m.ssm(replace(continuous(m), A=np.full((m.h, 2), 20.0)))
    m.output(m.x, "y")
    with pytest.raises(UserError, match="2/delta") as caught:
        PassManager("discretize{method=bilinear}").run(m.graph, Context())
    assert "node 'ssm' (from ssm_1)" in caught.value.where


def test_dense_systems_become_diagonal_and_halved() -> None:
    m = Model(3)
    dense_groups(m)
    m.output(m.x, "y")
    context = Context()
    result = PassManager("diagonalize,halve-conjugates").run(m.graph, context)
    assert only(result).diagonal
    assert "condition of T" in context.notes[0].text


def test_a_defective_system_becomes_triangular() -> None:
    m = Model(3)
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
    a = rotation @ np.array([[0.5, 1.0], [0.0, 0.5]]) @ rotation.T
    m.x = m.ssm(StateSpace(a[None], np.ones((1, 2, m.h)), np.ones((1, 1, 2)), np.zeros((1, 1, m.h))))
    m.output(m.x, "y")
    context = Context(MACHINES["digital"])
    result = PassManager("diagonalize").run(m.graph, context)
    assert only(result).A.shape == (1, 2, 2) and only(result).A[0, 1, 0] == 0
    assert "not diagonal: the eigenvectors of A" in context.notes[0].text
    tiles = PassManager("tile").run(result, context)
    assert [node.op["read_before"] for node in tiles.nodes("tile.state")] == [True, True]
    with pytest.raises(UserError, match="feed each other in cycles") as caught:
        PassManager("tile").run(m.graph, context)
    assert "node 'ssm' (from ssm_1)" in caught.value.where


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_triangular_states_of_one_input_keep_their_gains(machine: str) -> None:
    """States that feed each other cannot be counted in units of B one by one: the manager compares what `tile` does."""
    m = Model(3)
    a = np.tril(m.rng.uniform(-0.2, 0.2, (m.h, 4, 4))) + 0.7 * np.eye(4)
    b, c = m.rng.uniform(0.5, 2, (2, m.h, 4, 1))
    m.x = m.ssm(StateSpace(a, b, c.swapaxes(1, 2), np.zeros((m.h, 1, 1))))
    m.output(m.x, "y")
    tiles = PassManager("tile").run(m.graph, Context(MACHINES[machine]))
    assert not any(True for _ in tiles.nodes("ssm"))


@pytest.mark.parametrize("is_complex", [False, True])
def test_a_level_is_fed_by_one_product_where_arrays_are_at_hand(is_complex: bool) -> None:
    """However many levels are before it; where an array takes its weights in turn, one for each of them."""
    m, states = Model(3), 6
    a = np.tril(m.rng.uniform(-0.2, 0.2, (1, states, states))) + 0.5 * np.eye(states)
    if is_complex:
        a = a + 0.1j * np.tril(m.rng.uniform(-1, 1, a.shape))
    b, c = m.rng.uniform(0.5, 2, (1, states, m.h)), m.rng.uniform(0.5, 2, (1, 1, states))
    m.x = m.ssm(StateSpace(a, b, c, np.zeros((1, 1, m.h))))
    m.output(m.x, "y")
    feeds = []
    for arrays in (8, None):
        machine = replace(MACHINES["digital"], arrays=arrays)
        tiles = PassManager("tile").run(m.graph, Context(machine))  # which compares what both compute
        feeds.append(sum(".feed" in node.name for node in tiles.nodes("tile.matmul")))
    assert feeds == [states - 1, states * (states - 1) // 2]


def test_a_shift_register_stays_what_it_is() -> None:
    m = Model(3)
    shift_register(m)
    m.output(m.x, "y")
    result = PassManager("diagonalize").run(m.graph, Context())
    assert not only(result).is_complex and set(only(result).A.ravel()) == {0.0, 1.0}
    tiles = PassManager("tile").run(result, Context(MACHINES["digital"]))
    assert [node.op["decay"].shape for node in tiles.nodes("tile.state")] == [(m.h,)] * 3


def test_dense_decays_cannot_follow_the_elapsed_time() -> None:
    m = Model(3)
    a = np.array([[[-0.5, 1.0], [0.0, -0.5]]])
    value = StateSpace(a, np.ones((1, 2, m.h)), np.ones((1, 1, 2)), np.zeros((1, 1, m.h)), delta=1.0, asynchronous=True)
    m.x = m.ssm(value, m.dt())
    m.output(m.x, "y")
    with pytest.raises(UserError, match="dense and its decay follows the elapsed time"):
        PassManager("diagonalize,tile").run(m.graph, Context(MACHINES["digital"]))


def test_dense_states_keep_their_meaning_at_the_models_edges() -> None:
    """Real states in and out; inside, half of the conjugate pairs of the eigenbasis."""
    for groups in (1, 2):
        m = Model(5)
        m.h = 2
        m.graph = Graph("edges")
        m.x = m.input("u", m.graph_type())
        value = system(m.rng, groups, 4, 2 // groups, 1, complex_=False, dense=True)
        start = m.input("x0", SequenceType((groups * 4,)), "state")
        m.x = m.ssm(value, None, start)
        m.output(Value(m.x.node, 1), "last", "state")
        m.output(m.x, "y")
        result = PassManager("diagonalize,halve-conjugates").run(m.graph, Context())
        made = only(result)
        pairs = (np.abs(np.linalg.eigvals(value.A).imag) > 0).sum(axis=1).min() // 2
        assert made.diagonal and (made.halved == (pairs > 0))
        rng = np.random.default_rng(0)
        inputs = {"u": rng.standard_normal((3, 7, 2)), "x0": rng.standard_normal((3, groups * 4))}
        y, last = statespace.simulate(value, inputs["u"], x0=inputs["x0"].reshape(3, groups, 4))
        found = interpret(result, inputs)
        np.testing.assert_allclose(found["y"], y, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found["last"], last.reshape(3, -1), rtol=1e-9, atol=1e-10)


def test_both_states_of_pairs_become_one() -> None:
    m = Model(6)
    value = paired(system(m.rng, 1, 3, m.h, 2, halved=False))
    m.x = m.ssm(value)
    m.output(m.add("real", Value(m.x.node, 1)), "last", "state")
    m.output(m.x, "y")
    result = PassManager("halve-conjugates").run(m.graph, Context())
    assert only(result).halved and only(result).states == 3


def test_last_states_of_pairs_in_units_of_their_own() -> None:
    """States that are multiples of a conjugate pair: the kept one gives the other one, in its unit."""
    m = Model(6)
    value = paired(system(m.rng, 1, 3, m.h, 2, halved=False))
    units = m.rng.standard_normal((1, 6)) + 1j * m.rng.standard_normal((1, 6))
    m.x = m.ssm(replace(value, B=units[:, :, None] * value.B, C=value.C / units[:, None, :]))
    for part in ("real", "imag"):
        m.output(m.add(part, Value(m.x.node, 1)), part, "state")
    m.output(m.x, "y")
    result = PassManager("halve-conjugates", validate=False).run(m.graph, Context())
    assert only(result).halved and only(result).states == 3
    u = m.rng.standard_normal((2, 7, m.h))
    _, last = statespace.simulate(value, u)
    found = interpret(result, {"u": u})
    np.testing.assert_allclose(found["real"] + 1j * found["imag"], last.reshape(2, 6) * units, rtol=1e-9, atol=1e-10)


def test_a_complex_output_read_by_its_real_part_is_a_real_output() -> None:
    m = Model(6)
    value = paired(system(m.rng, 1, 3, m.h, 2, halved=False, real_output=False))
    m.x = m.ssm(value)
    m.output(m.add("real", m.x), "a")
    m.output(m.add("real", m.x), "b")
    result = PassManager("halve-conjugates").run(m.graph, Context())
    assert only(result).real_output and only(result).halved
    assert not list(result.nodes("real"))
    assert set(next(result.nodes("ssm")).provenance) == {"ssm_1", "real_2", "real_3"}


def test_states_that_the_user_gives_are_not_halved() -> None:
    m = Model(6)
    value = paired(system(m.rng, 1, 2, m.h, 2, halved=False))
    parts = [m.input(name, SequenceType((4,)), "state") for name in ("re", "im")]
    m.x = m.ssm(value, None, m.add("complex", *parts))
    m.output(m.x, "y")
    context = Context()
    result = PassManager("halve-conjugates").run(m.graph, context)
    assert not only(result).halved
    assert "the user gives" in context.notes[0].text


def test_padded_groups_get_a_decay_that_a_device_can_hold() -> None:
    a = np.array([[0.5 + 0.2j, 0.5 - 0.2j, 0.9, 0.8], [0.5 + 0.2j, 0.5 - 0.2j, 0.3 + 0.1j, 0.3 - 0.1j]])
    value = StateSpace(a, np.ones((2, 4, 1)), np.ones((2, 1, 4)) + 0j, np.zeros((2, 1, 1)))
    m = Model(1)
    m.graph, m.h = Graph("padded"), 2
    m.x = m.input("u", m.graph_type())
    m.x = m.ssm(value)
    m.output(m.x, "y")
    result = PassManager("halve-conjugates").run(m.graph, Context())
    assert only(result).states == 3
    assert (np.abs(only(result).A) > 0).all()
