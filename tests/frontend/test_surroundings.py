"""What stands around the systems of real models: stacks, stems, patches, norms, rare activations and tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.frontend import load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from tests.frontend.blocks import DYNAMIC, RNG, decaying, dense, first_layer, turned
from tests.frontend.checks import LINEAR, kinds, lift, on_targets
from tests.frontend.net import Net, save


def halves(net: Net, x: str) -> str:
    parts = net.op("Split", x, net.ints(2, 2), outputs=2, axis=2)
    return net.op("Concat", *(decaying(net, p, 2) for p in parts), axis=2)


STACKS = {
    "one after the other": (lambda net, x: x, 2),
    "a bias between": (lambda net, x: dense(net, x, 4, 4), 2),
    "the second backwards": (lambda net, x: turned(net, decaying(net, turned(net, x), 4)), 3),
    "heads between": (lambda net, x: halves(net, dense(net, x, 4, 4)), 3),
    "a running mean over features": (lambda net, x: net.op("CumSum", x, net.const(np.int64(2))), 2),
}


@pytest.mark.parametrize("between", STACKS)
def test_stacked_systems_are_found_one_by_one(tmp_path: Path, between: str) -> None:
    """Nothing but linear ops stands between the systems, and the whole is no system that the file tells of."""
    middle, least = STACKS[between]
    net = Net()
    x = first_layer(net)
    y = net.op("Add", x, decaying(net, middle(net, x), 4))
    model = lift(net, dense(net, y, 4, 2), ["n", "t", 2], tmp_path, *DYNAMIC)
    assert set(kinds(model)) == {LINEAR}
    assert len(model.systems) >= min(least, 2)
    assert not list(model.graph.nodes("fir"))


def test_a_bias_behind_a_product_is_carried_on(tmp_path: Path) -> None:
    """A norm by hand: (x - mean) g / deviation + b, then the next system."""
    net = Net()
    x = first_layer(net)
    centred = net.op("Sub", x, net.op("ReduceMean", x, net.ints(-1), keepdims=1))
    square = net.op("ReduceMean", net.op("Pow", centred, net.const(2.0)), net.ints(-1), keepdims=1)
    deviation = net.op("Sqrt", net.op("Add", square, net.const(1e-5)))
    normal = net.op("Div", net.op("Mul", centred, net.const(RNG.standard_normal(4))), deviation)
    shifted = net.op("Add", normal, net.const(RNG.standard_normal(4)))
    y = net.op("Add", x, decaying(net, shifted, 4))
    assert kinds(lift(net, y, ["n", "t", 4], tmp_path, *DYNAMIC)) == [LINEAR, LINEAR]


def test_a_product_of_streams_is_settled(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    pairs = net.op("Einsum", x, x, net.const(RNG.standard_normal((4, 4, 4)) * 0.1), equation="bti,btj,ijk->btk")
    y = net.op("Add", x, decaying(net, pairs, 4))
    assert set(kinds(lift(net, y, ["n", "t", 4], tmp_path, *DYNAMIC))) == {LINEAR}


CONVOLUTIONS = {
    "windows side by side": ({"strides": [4]}, 4),
    "half the steps": ({"strides": [2], "pads": [1, 1]}, 3),
    "wide": ({"strides": [2], "pads": [3, 3]}, 7),
    "causal": ({"strides": [2], "pads": [3, 0]}, 4),
    "shorter": ({}, 5),
    "spread taps": ({"strides": [3], "dilations": [2], "pads": [4, 0]}, 3),
    "per channel": ({"strides": [2], "pads": [1, 1], "group": 3}, 3),
    "groups": ({"strides": [2], "pads": [2, 2], "group": 3}, 5),
}


@pytest.mark.parametrize("length", [25, "t"])
@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_convolution_stems(tmp_path: Path, form: str, length: int | str) -> None:
    attrs, taps = CONVOLUTIONS[form]
    groups = int(attrs.get("group", 1))  # type: ignore[call-overload]
    outputs = 3 if form == "per channel" else 6
    net = Net()
    kernel, bias = RNG.standard_normal((outputs, 3 // groups, taps)), RNG.standard_normal(outputs)
    x = net.op("Conv", net.input(["n", 3, length]), net.const(kernel), net.const(bias), **attrs)
    x = decaying(net, net.op("Transpose", x, perm=[0, 2, 1]), outputs)
    y = net.op("ReduceMean", x, net.ints(1), keepdims=0)
    model = load_model(save(net.model([(y, ["n", outputs])]), tmp_path))
    assert LINEAR in kinds(model)
    for steps in (25, 24, 38) if length == "t" else (25,):
        on_targets(model, 2, steps)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_padded_convolution_with_a_stride(tmp_path: Path, kept: int) -> None:
    """The zeros come from a Pad; a moving average beside it counts what it sees."""
    net = Net()
    x = first_layer(net)
    first = net.op("Transpose", x, perm=[0, 2, 1])
    padded = net.op("Pad", first, net.ints(0, 0, 3, 0, 0, 0))
    u = net.op("Conv", padded, net.const(RNG.standard_normal((4, 4, 4))), strides=[2])
    mean = net.op("AveragePool", first, kernel_shape=[3], strides=[2], pads=[1, 1], count_include_pad=kept)
    mean = net.op("ReduceMean", mean, net.ints(2), keepdims=0)
    y = net.op("Add", net.op("ReduceMean", net.op("Tanh", u), net.ints(2), keepdims=0), mean)
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    for steps in (24, 31):
        on_targets(model, 2, steps)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_norm_of_every_step(tmp_path: Path, opset: int) -> None:
    """Batch and time as one axis; a scale a group (opset 18) or a channel."""
    net = Net()
    u = net.input(["n", "t", 3])
    x = decaying(net, dense(net, u, 3, 12), 12)
    parameters = (net.const(RNG.standard_normal(2 if opset < 21 else 12)) for _ in range(2))
    flat = net.op("GroupNormalization", net.op("Reshape", x, net.ints(-1, 12)), *parameters, num_groups=2)
    y = net.op("Add", x, decaying(net, net.op("Reshape", flat, net.op("Shape", x)), 12))
    model = load_model(save(net.model([(y, ["n", "t", 12])], opset=opset), tmp_path))
    assert kinds(model) == [LINEAR, LINEAR]
    on_targets(model, 2, 24)


def patches(net: Net, x: str) -> str:
    return dense(net, net.op("Reshape", x, net.ints(0, 6, 16)), 16, 4)


def unfolded(net: Net, x: str) -> str:
    """(time / 4, 4, features) with the window behind the features."""
    windows = net.op("Transpose", net.op("Reshape", x, net.ints(0, 6, 4, 4)), perm=[0, 1, 3, 2])
    return dense(net, net.op("Reshape", windows, net.ints(0, 6, 16)), 16, 4)


def skipped(net: Net, x: str) -> str:
    return net.op("Slice", x, net.ints(5), net.ints(1 << 40), net.ints(1))


def spaced(net: Net, x: str) -> str:
    return net.op("Slice", x, net.ints(7), net.ints(1 << 40), net.ints(1), net.ints(3))


PARTS = {"patches": patches, "unfolded": unfolded, "skipped": skipped, "spaced": spaced}


@pytest.mark.parametrize("form", PARTS)
def test_parts_of_the_time_axis(tmp_path: Path, form: str) -> None:
    net = Net()
    x = first_layer(net, 24)
    x = decaying(net, net.op("Tanh", PARTS[form](net, x)), 4)
    y = net.op("ReduceMean", x, net.ints(1), keepdims=0)
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    assert kinds(model) == [LINEAR, LINEAR]
    on_targets(model, 2, 24)


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_the_place_of_an_extreme(tmp_path: Path, kind: str, last: int) -> None:
    net = Net()
    x = first_layer(net)
    twice = net.op("Relu", net.op("Concat", x, x, axis=2))  # ties
    y = net.op(kind, twice, axis=2, keepdims=0, select_last_index=last)
    whole = net.model([(y, ["n", "t"])])
    whole.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model = load_model(save(whole, tmp_path))
    arrays = {model.inputs[0].name: RNG.standard_normal((2, 24, 3)).astype(np.float32)}
    found = run_graph(model.graph, model.inputs, model.outputs, arrays)
    for name, array in reference(model, arrays).items():
        assert np.array_equal(found[name], array)


ELEMENTWISE = {
    "Celu": {"alpha": 0.7},
    "ThresholdedRelu": {"alpha": 0.3},
    "Shrink": {"lambd": 0.4, "bias": 0.1},
}


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_rare_activations(tmp_path: Path, kind: str) -> None:
    net = Net()
    x = first_layer(net)
    lift(net, net.op(kind, x, **ELEMENTWISE[kind]), ["n", "t", 4], tmp_path, *DYNAMIC)


FUNCTIONS = ("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Atanh")


def test_functions_of_one_number(tmp_path: Path) -> None:
    """Those that no activation is made of; in (-0.9, 0.9), and for acosh above one."""
    net = Net()
    x = net.op("Mul", net.op("Tanh", first_layer(net)), net.const(0.9))
    above = net.op("Acosh", net.op("Add", net.op("Mul", x, x), net.const(1.1)))
    y = net.op("Concat", *(net.op(kind, x) for kind in FUNCTIONS), above, axis=2)
    on_targets(load_model(save(net.model([(y, ["n", "t", 36])], opset=22), tmp_path)), 2, 24)


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [
        ("LpNormalization", {"p": 1}),
        ("LpNormalization", {"axis": 1}),
        ("Hardmax", {}),
        ("MeanVarianceNormalization", {"axes": [2]}),
        ("MeanVarianceNormalization", {"axes": [1]}),
    ],
)
def test_rare_norms(tmp_path: Path, kind: str, attrs: dict[str, object]) -> None:
    net = Net()
    x = first_layer(net)
    on_targets(load_model(save(net.model([(net.op(kind, x, **attrs), ["n", "t", 4])]), tmp_path)), 2, 24)


def test_what_is_no_number_is_replaced(tmp_path: Path) -> None:
    """nan_to_num as the exporters write it."""
    net = Net()
    x = first_layer(net)
    root = net.op("Sqrt", x)
    finite = net.op("Where", net.op("IsNaN", root), net.const(0.5), root)
    inverse = net.op("Reciprocal", net.op("Relu", x))
    bounded = net.op("Where", net.op("IsInf", inverse, detect_negative=0), net.const(7.0), inverse)
    y = net.op("Add", finite, net.op("Tanh", bounded))
    on_targets(load_model(save(net.model([(y, ["n", "t", 4])]), tmp_path)), 2, 24)


def test_remainders_and_exclusive_or(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    rest = net.op("Mod", x, net.const(0.7), fmod=1)
    apart = net.op("Xor", net.op("Greater", x, net.const(0.1)), net.op("Greater", rest, net.const(0.0)))
    lift(net, net.op("Add", rest, net.op("Cast", apart, to=1)), ["n", "t", 4], tmp_path, *DYNAMIC)


def test_the_logarithm_of_a_sum(tmp_path: Path) -> None:
    net = Net()
    x = first_layer(net)
    whole = net.op("ReduceLogSumExp", x, net.ints(2), keepdims=1)
    y = net.op("Sub", whole, net.op("ReduceLogSum", net.op("Exp", x), net.ints(-1), keepdims=1))
    lift(net, net.op("Add", y, x), ["n", "t", 4], tmp_path, *DYNAMIC)


def test_one_hot_tokens(tmp_path: Path) -> None:
    net = Net()
    tokens = net.input(["n", "t"], TensorProto.INT64)
    hot = net.op("OneHot", tokens, net.const(np.int64(7)), net.const(np.array([0.0, 1.0])))
    y = decaying(net, net.op("MatMul", hot, net.const(RNG.standard_normal((7, 4)))), 4)
    model = load_model(save(net.model([(y, ["n", "t", 4])]), tmp_path))
    arrays = {model.inputs[0].name: RNG.integers(-7, 7, (2, 24))}
    found = run_graph(model.graph, model.inputs, model.outputs, arrays)
    for name, array in reference(model, arrays).items():
        assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def test_positions_looked_up_as_far_as_the_table_goes(tmp_path: Path) -> None:
    net = Net()
    u = net.input(["n", "t", 3])
    size = net.op("Gather", net.op("Shape", u), net.const(np.int64(1)), axis=0)
    steps = net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1)))
    table = net.op("Gather", net.const(RNG.standard_normal((40, 4))), steps, axis=0)
    y = decaying(net, net.op("Add", dense(net, u, 3, 4), table), 4)
    model = lift(net, y, ["n", "t", 4], tmp_path, (2, 24), (2, 40))
    assert any("known for 40 steps" in note for note in model.notes)


@pytest.mark.parametrize("length", ["t", 24])
def test_positions_joined_to_the_features(tmp_path: Path, length: int | str) -> None:
    """Every step is told where in the sequence it is, in a feature of its own: from 0 to 1 over the steps there are."""
    net = Net()
    u = net.input(["n", length, 3])
    shape = net.op("Shape", u)
    batch, size = (net.op("Gather", shape, net.const(np.int64(axis)), axis=0) for axis in (0, 1))
    steps = net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1)))
    share = net.op("Div", net.op("Cast", steps, to=1), net.const(64.0))
    whole = net.op(
        "Concat", net.op("Unsqueeze", batch, net.ints(0)), net.op("Unsqueeze", size, net.ints(0)), net.ints(1), axis=0
    )
    own = net.op("Expand", net.op("Unsqueeze", share, net.ints(0, 2)), whole)
    y = decaying(net, dense(net, net.op("Concat", u, own, axis=2), 4, 4), 4)
    lift(net, dense(net, y, 4, 2), ["n", length, 2], tmp_path, *((2, 24), (1, 24 if length == 24 else 41)))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_moving_average_that_starts_from_the_first_sample(tmp_path: Path, mixed: bool) -> None:
    """x_0 = u_0, then x_k = a x_{k-1} + (1 - a) u_k, unrolled; `mixed`: from a multiple of it, with a matrix before."""
    net, decay = Net(), RNG.uniform(0.5, 0.9, 4)
    u = dense(net, net.input(["n", 24, 4]), 4, 4)
    steps = [net.op("Gather", u, net.const(np.int64(k)), axis=1) for k in range(24)]
    a, b = net.const(decay), net.const(1 - decay)
    x = net.op("Mul", steps[0], net.const(np.array([1.0, -0.5, 2.0, 0.3]))) if mixed else steps[0]
    states = [x]
    for step in steps[1:]:
        x = net.op("Add", net.op("Mul", a, x), net.op("Mul", b, step))
        states.append(x)
    y = net.op("Concat", *(net.op("Unsqueeze", x, net.ints(1)) for x in states), axis=1)
    model = load_model(save(net.model([(dense(net, net.op("Tanh", y), 4, 2), ["n", 24, 2])]), tmp_path))
    assert kinds(model) == [LINEAR]
    found = model.systems[0].time_constants
    assert found is not None and np.allclose(np.unique(np.round(found, 4)), np.sort(np.round(-1 / np.log(decay), 4)))
    on_targets(model, 2, 24)
