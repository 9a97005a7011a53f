"""What stands around the systems of real models: stacks, stems, patches, masks, pooling and heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from ssmc.frontend.proof import run_graph
from tests.frontend.net import Net, save
from tests.frontend.test_unseen import kinds, lift

RNG = np.random.default_rng(11)
LINEAR = "linear time-invariant"
DYNAMIC = ((2, 24), (3, 37))


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


def decaying(net: Net, u: str, width: int) -> str:
    """x_k = a x_{k-1} + u_k as a cumulative sum against growing weights, for any length; u is (batch, time, width)."""
    size = net.op("Gather", net.op("Shape", u), net.const(np.int64(1)), axis=0)
    steps = net.op("Cast", net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1))), to=1)
    exponent = net.op("Mul", net.op("Unsqueeze", steps, net.ints(1)), net.const(RNG.uniform(0.05, 0.3, width)))
    grown = net.op("Mul", u, net.op("Exp", exponent))
    return net.op("Mul", net.op("CumSum", grown, net.const(np.int64(1))), net.op("Exp", net.op("Neg", exponent)))


def dense(net: Net, x: str, inputs: int, outputs: int) -> str:
    y = net.op("MatMul", x, net.const(RNG.standard_normal((inputs, outputs))))
    return net.op("Add", y, net.const(RNG.standard_normal(outputs)))


def turned(net: Net, x: str) -> str:
    return net.op("Slice", x, net.ints(-1), net.ints(np.iinfo(np.int64).min), net.ints(1), net.ints(-1))


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
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    y = net.op("Add", x, decaying(net, middle(net, x), 4))
    model = lift(net, dense(net, y, 4, 2), ["n", "t", 2], tmp_path, *DYNAMIC)
    assert set(kinds(model)) == {LINEAR}
    assert len(model.systems) >= min(least, 2)
    assert not list(model.graph.nodes("fir"))


def test_a_bias_behind_a_product_is_carried_on(tmp_path: Path) -> None:
    """A norm by hand: (x - mean) g / deviation + b, then the next system."""
    net = Net()
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    centred = net.op("Sub", x, net.op("ReduceMean", x, net.ints(-1), keepdims=1))
    square = net.op("ReduceMean", net.op("Pow", centred, net.const(2.0)), net.ints(-1), keepdims=1)
    deviation = net.op("Sqrt", net.op("Add", square, net.const(1e-5)))
    normal = net.op("Div", net.op("Mul", centred, net.const(RNG.standard_normal(4))), deviation)
    shifted = net.op("Add", normal, net.const(RNG.standard_normal(4)))
    y = net.op("Add", x, decaying(net, shifted, 4))
    assert kinds(lift(net, y, ["n", "t", 4], tmp_path, *DYNAMIC)) == [LINEAR, LINEAR]


def test_a_product_of_streams_is_settled(tmp_path: Path) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    pairs = net.op("Einsum", x, x, net.const(RNG.standard_normal((4, 4, 4)) * 0.1), equation="bti,btj,ijk->btk")
    y = net.op("Add", x, decaying(net, pairs, 4))
    assert set(kinds(lift(net, y, ["n", "t", 4], tmp_path, *DYNAMIC))) == {LINEAR}


def on_targets(model: Model, batch: int, length: int) -> None:
    """Both targets give what onnxruntime gives."""
    (port,) = model.inputs
    u = RNG.standard_normal((batch, length, port.type.shape[0])).astype(np.float32)
    arrays = {port.name: u if port.axes == "btf" else u.transpose(0, 2, 1)}
    expected = reference(model, arrays)
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in expected.items():
            assert found[name].shape == array.shape
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


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
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
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
    x = decaying(net, dense(net, net.input(["n", 24, 3]), 3, 4), 4)
    x = decaying(net, net.op("Tanh", PARTS[form](net, x)), 4)
    y = net.op("ReduceMean", x, net.ints(1), keepdims=0)
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    assert kinds(model) == [LINEAR, LINEAR]
    on_targets(model, 2, 24)


def tail(net: Net, x: str) -> str:
    last = net.op("Slice", x, net.ints(-5), net.ints(1 << 40), net.ints(1))
    return dense(net, net.op("Flatten", last), 20, 2)


def flat(net: Net, x: str) -> str:
    return net.op(
        "Gemm",
        net.op("Dropout", net.op("Flatten", x)),
        net.const(RNG.standard_normal((2, 96))),
        net.const(RNG.standard_normal(2)),
        transB=1,
    )


def forecast(net: Net, x: str) -> str:
    y = net.op("MatMul", net.op("Transpose", x, perm=[0, 2, 1]), net.const(RNG.standard_normal((24, 2))))
    return net.op("ReduceSum", y, net.ints(1), keepdims=0)


def weighted(net: Net, x: str) -> str:
    return net.op("Einsum", x, net.const(RNG.standard_normal((24, 2))), equation="btf,tk->bk")


def lowest(net: Net, x: str) -> str:
    return dense(net, net.op("ReduceMin", x, net.ints(1), keepdims=0), 4, 2)


def softest(net: Net, x: str) -> str:
    return dense(net, net.op("ReduceLogSumExp", x, net.ints(1), keepdims=0), 4, 2)


def window(net: Net, x: str) -> str:
    mean = net.op("AveragePool", net.op("Transpose", x, perm=[0, 2, 1]), kernel_shape=[24])
    return dense(net, net.op("Squeeze", mean, net.ints(2)), 4, 2)


def strided_view(net: Net, x: str) -> str:
    mean = net.op("Reshape", net.op("ReduceMean", x, net.ints(1), keepdims=1), net.ints(-1))
    size = net.op("Gather", net.op("Shape", x), net.const(np.int64(0)), axis=0)
    rows = net.op("Mul", net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1))), net.const(np.int64(4)))
    index = net.op("Add", net.op("Unsqueeze", rows, net.ints(1)), net.ints(0, 1, 2, 3))
    return dense(net, net.op("Gather", mean, index, axis=0), 4, 2)


HEADS = {f.__name__: f for f in (tail, flat, forecast, weighted, lowest, softest, window, strided_view)}


@pytest.mark.parametrize("form", HEADS)
def test_what_becomes_of_a_sequence(tmp_path: Path, form: str) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", 24, 3]), 3, 4), 4)
    y = HEADS[form](net, x)
    model = load_model(save(net.model([(y, ["n", 2])]), tmp_path))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 24)


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_the_place_of_an_extreme(tmp_path: Path, kind: str, last: int) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    twice = net.op("Relu", net.op("Concat", x, x, axis=2))  # ties
    y = net.op(kind, twice, axis=2, keepdims=0, select_last_index=last)
    path = save(net.model([(y, ["n", "t"])]), tmp_path)
    model = load_model(path)
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
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    lift(net, net.op(kind, x, **ELEMENTWISE[kind]), ["n", "t", 4], tmp_path, *DYNAMIC)


def test_remainders_and_exclusive_or(tmp_path: Path) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    rest = net.op("Mod", x, net.const(0.7), fmod=1)
    apart = net.op("Xor", net.op("Greater", x, net.const(0.1)), net.op("Greater", rest, net.const(0.0)))
    lift(net, net.op("Add", rest, net.op("Cast", apart, to=1)), ["n", "t", 4], tmp_path, *DYNAMIC)


def test_the_logarithm_of_a_sum(tmp_path: Path) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    whole = net.op("ReduceLogSumExp", x, net.ints(2), keepdims=1)
    y = net.op("Sub", whole, net.op("ReduceLogSum", net.op("Exp", x), net.ints(-1), keepdims=1))
    lift(net, net.op("Add", y, x), ["n", "t", 4], tmp_path, *DYNAMIC)


def test_one_hot_tokens(tmp_path: Path) -> None:
    net = Net()
    tokens = net.input(["n", "t"], TensorProto.INT64)
    hot = net.op("OneHot", tokens, net.const(np.int64(7)), net.const(np.array([0.0, 1.0])))
    y = decaying(net, net.op("MatMul", hot, net.const(RNG.standard_normal((7, 4)))), 4)
    model = load_model(save(net.model([(y, ["n", "t", 4])]), tmp_path))
    arrays = {model.inputs[0].name: RNG.integers(0, 7, (2, 24))}
    found = run_graph(model.graph, model.inputs, model.outputs, arrays)
    for name, array in reference(model, arrays).items():
        assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def lengths(net: Net, form: str, length: int | str) -> str:
    """A system, of which only the first steps of each sequence count, as many as an input says."""
    u, count = net.input(["n", length, 3]), net.input(["n"], TensorProto.INT64)
    x = decaying(net, dense(net, u, 3, 4), 4)
    column = net.op("Unsqueeze", count, net.ints(1))
    if form == "last":
        index = net.op("Unsqueeze", net.op("Sub", column, net.ints(1)), net.ints(2))
        wide = net.op("Expand", index, net.ints(1, 1, 4))
        return net.op("Squeeze", net.op("GatherElements", x, wide, axis=1), net.ints(1))
    size = net.op("Gather", net.op("Shape", u), net.const(np.int64(1)), axis=0)
    steps = net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1)))
    valid = net.op("Less", net.op("Unsqueeze", steps, net.ints(0)), column)
    mask = net.op("Unsqueeze", valid, net.ints(2))
    if form == "max":
        kept = net.op("Where", mask, x, net.const(-np.inf))
        return net.op("ReduceMax", kept, net.ints(1), keepdims=0)
    kept = net.op("ReduceSum", net.op("Mul", x, net.op("Cast", mask, to=1)), net.ints(1), keepdims=0)
    if form == "mean":
        return net.op("Div", kept, net.op("Cast", column, to=1))
    counted = net.op("ReduceSum", net.op("Cast", valid, to=1), net.ints(1), keepdims=1)
    return net.op("Div", kept, counted)


@pytest.mark.parametrize("length", [24, "t"])
@pytest.mark.parametrize("form", ["mean", "counted", "max", "last"])
def test_masks_from_lengths(tmp_path: Path, form: str, length: int | str) -> None:
    net = Net()
    y = lengths(net, form, length)
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    assert kinds(model) == [LINEAR]
    u, count = (p.name for p in model.inputs)
    for steps in (24,) if length == 24 else (24, 37):
        arrays = {u: RNG.standard_normal((3, steps, 3)).astype(np.float32), count: np.array([1, steps // 2, steps])}
        for target in ("cim", "epochcore"):
            found = compile_model(model, target, ideal=True).run(arrays).outputs
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


def spread_over_time(net: Net, x: str, unbiased: bool) -> str:
    """The standard deviation over the steps, as the exporters write it: the mean of the squares around the mean."""
    mean = net.op("ReduceMean", x, net.ints(1), keepdims=1)
    centred = net.op("Sub", x, mean)
    square = net.op("ReduceMean", net.op("Mul", centred, centred), net.ints(1), keepdims=0)
    if unbiased:
        sizes = net.op("Gather", net.op("Shape", x), net.ints(1), axis=0)
        count = net.op("Cast", net.op("ReduceProd", sizes, keepdims=0), to=1)
        square = net.op("Div", net.op("Mul", square, count), net.op("Sub", count, net.const(1.0)))
    return net.op("Sqrt", square)


def deviation(net: Net, x: str) -> str:
    return spread_over_time(net, x, unbiased=False)


def unbiased(net: Net, x: str) -> str:
    return net.op("Add", net.op("ReduceMean", x, net.ints(1), keepdims=0), spread_over_time(net, x, unbiased=True))


def attentive(net: Net, x: str) -> str:
    """Weights of a softmax over the steps, a head for each pair of features."""
    scores = dense(net, net.op("Tanh", dense(net, x, 4, 4)), 4, 2)
    weights = net.op("Unsqueeze", net.op("Softmax", scores, axis=1), net.ints(3))
    heads = net.op("Reshape", x, net.ints(0, 0, 2, 2))
    return net.op("Flatten", net.op("ReduceSum", net.op("Mul", heads, weights), net.ints(1), keepdims=0))


def attentive_product(net: Net, x: str) -> str:
    weights = net.op("Softmax", net.op("Transpose", dense(net, x, 4, 1), perm=[0, 2, 1]), axis=2)
    return net.op("Squeeze", net.op("MatMul", weights, x), net.ints(1))


def logarithmic(net: Net, x: str) -> str:
    """log mean exp: the sum divided by the number of steps afterwards."""
    size = net.op("Gather", net.op("Shape", x), net.const(np.int64(1)), axis=0)
    count = net.op("Log", net.op("Cast", size, to=1))
    return net.op("Sub", net.op("ReduceLogSumExp", x, net.ints(1), keepdims=0), count)


POOLINGS = {f.__name__: f for f in (deviation, unbiased, attentive, attentive_product, logarithmic)}


@pytest.mark.parametrize("form", POOLINGS)
def test_statistics_over_the_steps(tmp_path: Path, form: str) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", "t", 3]), 3, 4), 4)
    model = load_model(save(net.model([(POOLINGS[form](net, x), ["n", 4])]), tmp_path))
    assert kinds(model) == [LINEAR]
    for steps in (24, 41):
        on_targets(model, 2, steps)


def excited(net: Net, x: str) -> str:
    """Squeeze and excitation: every step is scaled by what the mean over all of them says."""
    return net.op("Mul", x, net.op("Sigmoid", net.op("ReduceMean", x, net.ints(1), keepdims=1)))


def covariance(net: Net, x: str) -> str:
    return net.op("MatMul", x, net.op("MatMul", net.op("Transpose", x, perm=[0, 2, 1]), x))


@pytest.mark.parametrize("form", [excited, covariance])
@pytest.mark.parametrize("length", [24, "t"])
def test_what_needs_the_whole_sequence_at_every_step_is_refused(
    tmp_path: Path, form: object, length: int | str
) -> None:
    net = Net()
    x = decaying(net, dense(net, net.input(["n", length, 3]), 3, 4), 4)
    y = decaying(net, form(net, x), 4)  # type: ignore[operator]
    with pytest.raises(UserError, match="known only after the last step"):
        load_model(save(net.model([(y, ["n", length, 4])]), tmp_path))


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
