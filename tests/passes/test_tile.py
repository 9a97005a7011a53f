"""tile: which tile ops a system becomes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssmc.diagnostics import UserError
from ssmc.ir import Graph, SequenceType, StreamType, Tensor, Value
from ssmc.passes import Context, Machine, PassManager, StateBank
from ssmc.passes.pieces import cut
from ssmc.statespace import StateSpace

from .graphs import FUSED, MACHINES, Model, asynchronous, build, linear, system


def model(h: int = 4, seed: int = 0) -> Model:
    m = Model(seed)
    m.graph = Graph("tiles")
    m.h = h
    m.x = m.input("u", StreamType((h,)))
    return m


def tiled(m: Model, machine: Machine, pipeline: str = "tile") -> Graph:
    if not any(True for _ in m.graph.nodes("output")):
        m.output(m.x, "y")
    return PassManager(pipeline).run(m.graph, Context(machine))


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes() if node.op.name not in ("input", "output", "constant")]


def without_d(value: StateSpace) -> StateSpace:
    return replace(value, D=np.zeros_like(value.D))


def test_a_matrix_is_cut_to_arrays() -> None:
    machine = replace(MACHINES["digital"], array_rows=3, array_cols=4, cells_per_weight=2)
    pieces = cut(Tensor(np.ones((7, 5))), machine)
    assert {(p.k1 - p.k0, p.n1 - p.n0) for p in pieces} == {(3, 2), (1, 2), (3, 1), (1, 1)}
    assert sum((p.k1 - p.k0) * (p.n1 - p.n0) for p in pieces) == 35
    sparse = np.zeros((6, 4))
    sparse[0, 0] = sparse[5, 3] = 1
    assert [(p.k0, p.n0) for p in cut(Tensor(sparse), machine)] == [(0, 0), (3, 2)]


def test_a_weight_wider_than_an_array_is_refused() -> None:
    machine = replace(MACHINES["digital"], array_cols=2, cells_per_weight=4)
    m = model()
    linear(m)
    with pytest.raises(UserError, match="cannot hold a weight of 4 cells"):
        tiled(m, machine)


def test_one_system_is_two_matrices_around_states() -> None:
    m = model()
    m.x = m.ssm(without_d(system(m.rng, 1, 3, 4, 2)))
    result = tiled(m, MACHINES["crossbar"])
    assert ops(result) == ["tile.matmul", "tile.state", "tile.matmul"]
    assert result.op("ssm")["weight"].shape == (6, 2) and result.op("ssm.drive")["weight"].shape == (4, 6)
    assert all(node.provenance == ("ssm_1",) for node in result.nodes("tile.matmul", "tile.state"))


def test_a_diagonal_d_is_no_matrix() -> None:
    m = model()
    value = system(m.rng, 1, 3, 4, 4)
    m.x = m.ssm(replace(value, D=np.diag(np.arange(1.0, 5))[None]))
    assert ops(tiled(m, MACHINES["digital"])).count("tile.matmul") == 2


def test_single_input_systems_live_in_a_fused_bank() -> None:
    m = model()
    m.x = m.ssm(system(m.rng, 4, 3, 1, 1))
    result = tiled(m, MACHINES["systolic"])
    assert ops(result) == ["tile.ssm"]
    op = result.op("ssm")
    assert (op["b"].array == 1).all(), "B goes into C"
    assert [(p.k0, p.k1, p.n0, p.n1) for p in op["pieces"]] == [(0, 4, 0, 3)]


def test_ganged_real_elements_hold_half_as_many_complex_states() -> None:
    m = model()
    m.x = m.ssm(system(m.rng, 4, 3, 1, 1))
    machine = replace(MACHINES["systolic"], banks=(replace(FUSED, native_complex=False),))
    assert [(p.n0, p.n1) for p in tiled(m, machine).op("ssm")["pieces"]] == [(0, 2), (2, 3)]


def test_single_input_systems_are_spread_elsewhere() -> None:
    m = model()
    m.x = m.ssm(without_d(system(m.rng, 4, 3, 1, 1, complex_=False)))
    result = tiled(m, MACHINES["crossbar"])
    assert ops(result) == ["take", "tile.state", "tile.matmul"]
    pieces = result.op("ssm")["pieces"]
    # Blocks on the diagonal share an array of eight rows, two at a time.
    assert [(p.k0, p.k1, p.n0, p.n1) for p in pieces] == [(0, 6, 0, 2), (6, 12, 2, 4)]


def test_states_that_somebody_sees_keep_their_b() -> None:
    for see in ("last", "option"):
        m = model()
        m.x = m.ssm(without_d(system(m.rng, 4, 3, 1, 1, complex_=False)))
        if see == "last":
            m.output(Value(m.x.node, 1), "last", "state")
        m.output(m.x, "y")
        text = "tile" if see == "last" else "tile{fold_input=false}"
        result = tiled(m, MACHINES["crossbar"], text)
        assert [op for op in ops(result) if op != "output"] == ["take", "binary", "tile.state", "tile.matmul"]


def one_decay(rng: np.random.Generator, outputs: int) -> StateSpace:
    value = system(rng, 2, 3, 4, outputs, complex_=False)
    return replace(value, A=np.repeat(value.A[:, :1], 3, 1))


def test_states_of_one_decay_need_one_matrix() -> None:
    for outputs, delta in ((1, None), (3, None), (2, 0.5)):
        m = model(8)
        value = one_decay(m.rng, outputs)
        if delta is not None:
            value = replace(value, A=-np.abs(value.A), delta=delta, asynchronous=True)
        m.x = m.ssm(value, *([] if delta is None else [m.dt()]))
        m.output(m.x, "y")
        result = tiled(m, MACHINES["crossbar"], "tile{fold_output=true}")  # compared with the model
        (state,) = result.nodes("tile.state")
        assert state.op["decay"].array.size == 2 * outputs
        drives = [n for n in result.nodes("tile.matmul") if not n.name.endswith(".through")]
        assert len(drives) == 1


def test_c_stays_where_decays_differ_or_somebody_sees_the_states() -> None:
    def read(value: StateSpace, see: bool, text: str = "tile{fold_output=true}") -> bool:
        m = model(8)
        m.x = m.ssm(value)
        if see:
            m.output(Value(m.x.node, 1), "last", "state")
        m.output(m.x, "y")
        (state,) = tiled(m, MACHINES["crossbar"], text).nodes("tile.state")
        return bool(state.op["decay"].array.size == value.A.size)

    same, other = one_decay(model().rng, 2), system(model().rng, 2, 3, 4, 2, complex_=False)
    assert not read(same, False)
    assert read(same, True) and read(other, False) and read(same, False, "tile")
    nearly = replace(same, A=same.A * [[1.0, 1 + 1e-9, 1.0]])
    assert read(nearly, False) and not read(replace(same, A=same.A * [[1.0, 1 + 2.0**-52, 1.0]]), False)


def test_elapsed_time_decays_in_volatile_banks_and_is_computed_elsewhere() -> None:
    for name, state in (("crossbar", "tile.state"), ("digital", "tile.recurrence"), ("systolic", "tile.recurrence")):
        result = PassManager("tile").run(build(2, [asynchronous]), Context(MACHINES[name]))
        assert state in ops(result)
        assert ("exp" in [node.op["fn"] for node in result.nodes("unary")]) == (state == "tile.recurrence")


def test_growing_states_need_a_computed_decay() -> None:
    m = model()
    value = replace(system(m.rng, 1, 2, 4, 1, complex_=False), A=np.array([[-0.5, 0.1]]), delta=1.0, asynchronous=True)
    m.x = m.ssm(value, m.dt())
    m.output(m.x, "y")
    assert "tile.recurrence" in ops(tiled(m, MACHINES["crossbar"]))
    only_volatile = replace(MACHINES["crossbar"], banks=MACHINES["crossbar"].banks[:1])
    with pytest.raises(UserError, match="follows the elapsed time") as caught:
        tiled(m, only_volatile)
    assert "ssm_1" in caught.value.where and "A delta = 0.1" in caught.value.why


def test_only_the_part_that_is_read_is_computed() -> None:
    m = model()
    z = m.add("linear", m.add("complex", m.x, m.x), weight=m.weight(4, 3, complex_=True))
    m.x = m.add("real", z)
    result = tiled(m, MACHINES["crossbar"])
    assert next(result.nodes("tile.matmul")).op["weight"].shape == (8, 3)
    assert {"linear_2", "real_3"} <= set(next(result.nodes("tile.matmul")).provenance)


@pytest.mark.parametrize(
    ("break_", "told"),
    [
        ("input", "the input 'z' is complex"),
        ("output", "the output 'z' is complex"),
        ("tanh", "no form in real numbers is known for 'tanh'"),
        ("max", "'pool' by 'max' has no meaning for complex"),
        ("norm", "'norm' has no form in real numbers"),
        ("continuous", "the system is continuous"),
    ],
)
def test_what_has_no_tiles_is_refused_by_name(break_: str, told: str) -> None:
    m = model()
    z = m.add("complex", m.x, m.x)
    match break_:
        case "input":
            m.x = m.add("real", m.input("z", StreamType((4,), "complex")))
        case "output":
            m.output(z, "z")
        case "tanh":
            m.x = m.add("real", m.add("unary", z, fn="tanh"))
        case "max":
            m.x = m.add("real", m.add("pool", z, kind="max"))
        case "norm":
            m.x = m.add("real", m.add("norm", z, kind="rms", epsilon=0.0))
        case "continuous":
            m.x = m.ssm(replace(system(m.rng, 1, 2, 4, 1), delta=0.1))
    with pytest.raises(UserError, match=told) as caught:
        tiled(m, MACHINES["digital"])
    assert caught.value.where.startswith("pass 'tile', node")


COMPLEX = (
    "neg",
    "square",
    "exp",
    "reciprocal",
    "add",
    "sub",
    "mul",
    "div",
    "real-mul",
    "rdiv",
    "gate",
    "select",
    "cat",
)


@pytest.mark.parametrize("fn", COMPLEX)
@pytest.mark.parametrize("layout", ["stream", "mixed"])
def test_complex_arithmetic_in_real_numbers(fn: str, layout: str) -> None:
    """Each rule against complex numbers; in the mixed layout parts are constants and of lower rank."""
    m = model(3)
    other = m.add("unary", m.x, fn="cos")
    z = m.add("complex", m.x, other if layout == "stream" else m.constant(np.array(0.5)))
    w = m.constant(m.rng.standard_normal(3) + 1j * m.rng.standard_normal(3))
    match fn:
        case "neg" | "square" | "exp" | "reciprocal":
            out = m.add("unary", z, fn=fn)
        case "real-mul":
            out = m.add("binary", m.x, z, fn="mul")
        case "rdiv":
            out = m.add("binary", m.x, z, fn="div")
        case "gate":
            out = m.add("gate", z, m.add("binary", z, w, fn="mul"), fn="exp")
        case "select":
            out = m.add("select", m.x, z, w)
        case "cat":
            out = m.add("delay", m.add("reverse", m.add("concat", z, m.add("spread", w, m.x), m.x, axis=-1)), steps=2)
        case _:
            out = m.add("binary", z, w, fn=fn)
    m.output(m.add("real", out), "re")
    m.output(m.add("imag", out), "im")
    result = tiled(m, MACHINES["digital"])  # the manager compares at 1e-9
    assert not {"complex", "real", "imag"} & set(ops(result))


@pytest.mark.parametrize("kind", ["real-decay", "real-drive", "constant", "start"])
def test_recurrences_of_every_kind(kind: str) -> None:
    m = model(6)
    size = m.add("unary", m.x, fn="sigmoid")
    drive = m.add("reshape", m.x, shape=(3, 2))
    z = m.add("complex", drive, m.add("unary", drive, fn="sin"))
    decay = m.add("reshape", size, shape=(3, 2))
    turn = m.add("binary", decay, m.constant(np.exp(1j * m.rng.standard_normal(2))), fn="mul")
    start = None
    match kind:
        case "real-decay":
            pair = (decay, z)
        case "real-drive":
            pair = (turn, drive)
        case "constant":
            pair = (m.constant(np.array([0.5, 0.3j])), drive)
        case _:
            pair = (turn, z)
            first = m.input("x0", SequenceType((3, 2)), "state")
            start = m.add("complex", first, first)
    operands = pair if start is None else (*pair, start)
    out = m.add("recurrence", *operands, read_before=kind == "start", reverse=kind == "real-drive")
    m.output(m.add("imag", out), "y")
    m.output(m.add("real", Value(out.node, 1)), "last", "state")
    result = tiled(m, MACHINES["systolic"])
    assert ("tile.state" if kind == "constant" else "tile.recurrence") in ops(result)


def test_quantised_tensors_reach_the_tiles() -> None:
    m = model()
    m.x = m.ssm(system(m.rng, 1, 3, 4, 4))
    m.x = m.ssm(system(m.rng, 4, 3, 1, 1))
    linear(m)
    for name in ("crossbar", "systolic"):
        result = tiled(m, MACHINES[name], "quantize{weights=5},tile")
        for node in result.nodes("tile.matmul"):
            assert node.op["weight"].quantization.bits == 5
            assert np.abs(node.op["weight"].integers()).max() == 15
        for node in result.nodes("tile.ssm"):
            assert node.op["c"].quantization.axis == -2
            assert np.abs(node.op["c"].integers().real).max() <= 15


def test_a_plain_array_needs_no_banks_for_matrices() -> None:
    m = model()
    linear(m)
    machine = Machine("plain", 8, 8, None, 1, (StateBank("registers"),))
    assert ops(tiled(m, machine, "tile,map-weights,schedule")) == ["tile.matmul"]
    assert isinstance(next(m.graph.nodes("linear")).op["weight"], Tensor)
