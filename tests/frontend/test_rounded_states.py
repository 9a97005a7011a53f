"""Systems whose states are rounded at every step: every writing and place of it, in every loop, run on both targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from ssmc.ir.ops.rounded import PLACES as IR_PLACES
from ssmc.ir.ties import find_ties
from ssmc.verification import verify
from tests.frontend.checks import refused
from tests.frontend.net import Net, save
from tests.frontend.rounding import LENGTH, LOOPS, PLACES, WIDTH, WRITINGS, Layer, Rounding, rounded, write

SCALE = 0.0473


def lifted(layer: Layer, loop: str, folder: Path) -> Model:
    model = load_model(write(layer, loop, folder))
    (system,) = model.systems
    assert system.kind == "rounded" and system.is_complex == bool(layer.pairs)
    assert system.groups == WIDTH and system.proof_error <= 1e-9
    return model


def runs(model: Model, length: int = 12) -> None:
    """Both targets give what onnxruntime gives."""
    shape = (2, length, 3)
    data = {
        port.name: np.random.default_rng(3).standard_normal(shape).astype(np.float32)
        for port in model.inputs
        if port.name not in model.states
    }
    expected = reference(model, data)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(data).outputs
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * np.abs(array).max())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("writing", WRITINGS)
def test_a_rounded_sum(tmp_path: Path, writing: str, loop: str) -> None:
    model = lifted(Layer(Rounding(writing, SCALE)), loop, tmp_path)
    if writing in ("qdq", "half up"):
        runs(model)
    (node,) = model.graph.nodes("rounded")
    scale, shift, zero, low, high = node.op["sum_grid"].array
    np.testing.assert_array_equal(scale, np.float64(np.float32(SCALE)))
    np.testing.assert_array_equal(zero, np.zeros(WIDTH))
    np.testing.assert_array_equal(shift, np.full(WIDTH, 0.5 if writing == "half up" else 0.0))
    if writing != "unbounded":
        np.testing.assert_array_equal([low, high], np.outer([-128, 127], np.ones(WIDTH)))


@pytest.mark.parametrize("writing", ["qdq", "chain", "straight-through"])
@pytest.mark.parametrize("places", [("state",), ("product",), PLACES])
def test_where_a_step_rounds(tmp_path: Path, places: tuple[str, ...], writing: str) -> None:
    model = lifted(Layer(Rounding(writing, SCALE), places), "scan", tmp_path)
    (node,) = model.graph.nodes("rounded")
    assert {place for place in PLACES if node.op[f"{place}_grid"] is not None} == set(places)
    runs(model)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("pairs", ["halves", "apart"])
def test_complex_states(tmp_path: Path, pairs: str, loop: str) -> None:
    """Real and imaginary parts are rounded by themselves, each with its own scale where it has one."""
    scale = np.random.default_rng(4).uniform(0.02, 0.1, 2 * WIDTH if pairs == "halves" else WIDTH)
    runs(lifted(Layer(Rounding("qdq", scale), ("state", "sum"), pairs), loop, tmp_path))


@pytest.mark.parametrize("pairs", ["halves", "apart"])
@pytest.mark.parametrize(
    ("loop", "writing", "places"),
    [
        ("scan", "qdq", ("product",)),
        ("loop", "chain", ("state", "product", "turned", "sum")),
        ("unrolled", "straight-through", ("product", "sum")),
        ("step", "qdq", ("state", "product", "turned", "sum")),
        ("scan", "unbounded", ("turned",)),
    ],
)
def test_complex_products(tmp_path: Path, loop: str, writing: str, places: tuple[str, ...], pairs: str) -> None:
    """Each of the products and their sums is rounded, as quantisation tools do to every node."""
    model = lifted(Layer(Rounding(writing, SCALE), places, pairs), loop, tmp_path)
    (node,) = model.graph.nodes("rounded")
    wanted = {*places, *(["cross"] if "product" in places else [])}
    assert {place for place in IR_PLACES if node.op[f"{place}_grid"] is not None} == wanted
    runs(model)


@pytest.mark.parametrize("low", [-8, 0])
@pytest.mark.parametrize("zero", [0, 3])
@pytest.mark.parametrize("writing", ["qdq", "chain"])
def test_few_codes_and_zero_points(tmp_path: Path, writing: str, zero: int, low: int) -> None:
    """A state that often leaves its range."""
    high = low + 15 if writing == "chain" else 127 if low < 0 else 255
    scale = 0.3 if writing == "chain" else 0.02
    model = lifted(Layer(Rounding(writing, scale, zero, low, high)), "scan", tmp_path)
    (node,) = model.graph.nodes("rounded")
    *_, zeros, lows, highs = node.op["sum_grid"].array
    assert (highs - lows == (high - low if writing == "chain" else 255)).all() and (zeros - lows >= 0).all()
    runs(model)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_scales_of_each_state(tmp_path: Path, bits: int) -> None:
    scale = np.random.default_rng(5).uniform(4.0, 8.0, WIDTH) / 2**bits
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    model = lifted(Layer(Rounding("chain", scale, 0, low, high)), "scan", tmp_path)
    (node,) = model.graph.nodes("rounded")
    np.testing.assert_array_equal(node.op["sum_grid"].array[0], scale.astype(np.float32).astype(np.float64))


def on_the_edge(folder: Path, drive: float) -> Path:
    """x' = Q(0.5 x + drive sign(u)), of few codes: their edges are met again and again."""
    net = Net()
    u = net.input([2, LENGTH, WIDTH])
    signs = net.op("Mul", net.op("Sign", u), net.const(np.float32(drive)))
    body = Net()
    state, v = body.input([2, WIDTH]), body.input([2, WIDTH])
    following = rounded(body, body.op("Add", body.op("Mul", state, body.const(0.5)), v), Rounding("qdq", 0.1))
    graph = body.subgraph([(following, [2, WIDTH]), (body.op("Identity", following), [2, WIDTH])])
    attrs = {"body": graph, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    _, y = net.op("Scan", net.const(np.zeros((2, WIDTH))), signs, outputs=2, **attrs)
    return save(net.model([(y, [2, LENGTH, WIDTH])], opset=17), folder)


def test_roundings_on_the_edge_between_two_codes(tmp_path: Path) -> None:
    """1.5 steps of a grid are less than that in float64, exactly that in float32: onnxruntime takes another code."""
    path = on_the_edge(tmp_path, 0.15)
    model = load_model(path)
    (note,) = (note for note in model.notes if "on the edge" in note)
    assert "may go either way" in note
    own, theirs = ([p for p in model.proofs if p.against.startswith(who)] for who in ("the file", "onnx"))
    assert max(p.error for p in own) == 0.0 and max(p.error for p in theirs) > 1e-2
    data = {model.inputs[0].name: np.random.default_rng(1).standard_normal((2, LENGTH, WIDTH)).astype(np.float32)}
    for target in ("cim", "epochcore"):
        found = verify(model, target, data, ideal=True)
        assert found.passed and "on the edge" in found.note
        assert not verify(model, target, data, ideal=True, tolerance=1e-5).passed


def test_no_edge_no_tolerance(tmp_path: Path) -> None:
    model = load_model(on_the_edge(tmp_path, 0.17))
    assert not model.notes and all(p.tolerance <= 1e-3 for p in model.proofs)
    ties = find_ties(model.graph, {model.inputs[0].name: np.random.default_rng(1).standard_normal((2, LENGTH, WIDTH))})
    assert (ties.near, ties.count, ties.effect) == (0, 2 * LENGTH * WIDTH, 0.0)


def one(net: Net, what: str) -> str:
    """A model of a state that is rounded in a way that is refused."""
    u, body = net.input([2, LENGTH, WIDTH]), Net()
    state, v = body.input([2, WIDTH]), body.input([2, WIDTH])
    rng = np.random.default_rng(7)
    decay = body.const(rng.uniform(0.5, 0.9, WIDTH))
    if what == "data":
        product = body.op("Mul", state, body.op("Sigmoid", v))
    else:
        product = body.op("Mul", state, decay)
    total = body.op("Add", product, v)
    if what == "a scale of the data":
        scale = body.op("Div", body.op("ReduceMax", body.op("Abs", v), axes=[1], keepdims=1), body.const(127.0))
        following = body.op("Mul", body.op("Round", body.op("Div", total, scale)), scale)
    else:
        following = rounded(body, total, Rounding("qdq", 0.1))
    if what == "a square":
        following = body.op("Mul", following, following)
    graph = body.subgraph([(following, [2, WIDTH]), (body.op("Identity", following), [2, WIDTH])])
    attrs = {"body": graph, "num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    return str(net.op("Scan", net.const(np.zeros((2, WIDTH))), u, outputs=2, **attrs)[1])


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("data", "what multiplies the state, or the scale by which it is rounded, depends on the data"),
        ("a scale of the data", "the scale by which it is rounded, depends on the data"),
        ("a square", "but for that it is not linear in the state"),
    ],
)
def test_what_is_refused(tmp_path: Path, what: str, reason: str) -> None:
    net = Net()
    y = one(net, what)
    path = save(net.model([(y, [2, LENGTH, WIDTH])], opset=17), tmp_path)
    refused(path, "rounds the state at every step", reason, "--drop-rounding")


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_rounding_in_any_loop(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    pairs = data.draw(st.sampled_from(["", "halves", "apart"]))
    writing, loop = data.draw(st.sampled_from(WRITINGS)), data.draw(st.sampled_from(LOOPS))
    every = PLACES if not pairs else ("state", "sum") if writing == "half up" else (*PLACES, "turned")
    places = data.draw(st.sets(st.sampled_from(every), min_size=1))
    low = data.draw(st.sampled_from([-128, -8])) if writing != "qdq" else -128
    zero = data.draw(st.sampled_from([0, 5])) if writing in ("qdq", "chain") else 0
    seed = data.draw(st.integers(0, 2**16))
    rounding = Rounding(writing, np.random.default_rng(seed).uniform(0.02, 0.1), zero, low, -low - 1)
    runs(lifted(Layer(rounding, sorted(places), pairs, seed), loop, tmp_path_factory.mktemp("any")))
