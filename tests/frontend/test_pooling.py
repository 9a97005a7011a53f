"""What becomes of a whole sequence: pooling, statistics over the steps, heads that see them all, masks from lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from ssmc.frontend.proofs.proof import run_graph
from tests.frontend.blocks import RNG, decaying, dense, first_layer
from tests.frontend.checks import LINEAR, kinds, on_targets
from tests.frontend.net import Net, save


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
    x = first_layer(net, 24)
    y = HEADS[form](net, x)
    model = load_model(save(net.model([(y, ["n", 2])]), tmp_path))
    assert kinds(model) == [LINEAR]
    on_targets(model, 2, 24)


ONES = ["rows of a one", "times rows of a one"]  # one_hot(count - 1) with an einsum


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
    if form in ("pairs", "spread pairs", "flattened"):  # x[arange(batch), count - 1], by dynamo and by TorchScript
        batch = net.op("Gather", net.op("Shape", u), net.const(np.int64(0)), axis=0)
        rows = net.op("Range", net.const(np.int64(0)), batch, net.const(np.int64(1)))
        if form == "pairs":
            place = net.op("Sub", column, net.ints(1))
            return net.op("GatherND", x, net.op("Concat", net.op("Unsqueeze", rows, net.ints(1)), place, axis=1))
        if form == "spread pairs":  # both to the shape of the larger one, which nothing else needs
            place = net.op("Sub", count, net.ints(1))
            shape = net.op("Shape", net.op("Max", rows, place))
            pairs = [net.op("Unsqueeze", net.op("Expand", v, shape), net.ints(1)) for v in (rows, place)]
            return net.op("GatherND", x, net.op("Concat", *pairs, axis=1))
        place = net.op("Add", net.op("Sub", count, net.ints(1)), net.op("Mul", rows, size))
        picked = net.op("Gather", net.op("Flatten", x, axis=2), place, axis=0)
        return net.op("Reshape", picked, net.op("Concat", net.op("Shape", place), net.ints(4), axis=0))
    if form in ("rows of a one", "times rows of a one"):
        place, depth = net.op("Sub", count, net.ints(1)), net.const(np.int64(24)) if length == 24 else size
        ones = net.op("Cast", net.op("OneHot", place, depth, net.const(np.array([0, 1], np.int64))), to=1)
        if form == "rows of a one":
            return net.op("Einsum", ones, x, equation="bt,btd->bd")
        return net.op("Einsum", net.op("Transpose", x, perm=[0, 2, 1]), ones, equation="bdt,bt->bd")
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
@pytest.mark.parametrize("form", [*("mean", "counted", "max", "last", "pairs", "spread pairs", "flattened"), *ONES])
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


@pytest.mark.parametrize("form", ONES)
def test_rows_of_a_one_that_count_from_the_end_or_are_nothing(tmp_path: Path, form: str) -> None:
    """A place of -1 is the last step, one behind the last is none, as OneHot has it."""
    net = Net()
    model = load_model(save(net.model([(lengths(net, form, "t"), ["n", 4])]), tmp_path))
    u, count = (port.name for port in model.inputs)
    arrays = {u: RNG.standard_normal((3, 24, 3)).astype(np.float32), count: np.array([0, 5, 25])}
    found = run_graph(model.graph, model.inputs, model.outputs, arrays)
    for name, array in reference(model, arrays).items():
        assert np.any(array[0]) and not np.any(array[2])
        assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


@pytest.mark.parametrize("length", [24, "t"])
def test_the_last_step_that_a_mask_leaves(tmp_path: Path, length: int | str) -> None:
    """x[arange(batch), mask.sum(1) - 1]: which step that is is known after the last one."""
    net = Net()
    u, mask = net.input(["n", length, 3]), net.input(["n", length])
    x = decaying(net, dense(net, u, 3, 4), 4)
    count = net.op("Cast", net.op("ReduceSum", mask, net.ints(1), keepdims=1), to=7)
    batch = net.op("Gather", net.op("Shape", u), net.const(np.int64(0)), axis=0)
    rows = net.op("Range", net.const(np.int64(0)), batch, net.const(np.int64(1)))
    place = net.op("Concat", net.op("Unsqueeze", rows, net.ints(1)), net.op("Sub", count, net.ints(1)), axis=1)
    model = load_model(save(net.model([(net.op("GatherND", x, place), ["n", 4])]), tmp_path))
    valid = (np.arange(24) < np.array([[3], [24]])).astype(np.float32)
    arrays = {u: RNG.standard_normal((2, 24, 3)).astype(np.float32), mask: valid}
    for target in ("cim", "epochcore"):
        found = compile_model(model, target, ideal=True).run(arrays).outputs
        for name, array in reference(model, arrays).items():
            assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


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
    x = first_layer(net)
    model = load_model(save(net.model([(POOLINGS[form](net, x), ["n", 4])]), tmp_path))
    assert kinds(model) == [LINEAR]
    for steps in (24, 41):
        on_targets(model, 2, steps)


@pytest.mark.parametrize(
    "attrs",
    [{"kernel_shape": [4], "strides": [4]}, {"kernel_shape": [3], "strides": [1], "pads": [2, 0], "p": 1}],
    ids=["side by side", "overlapping"],
)
def test_norms_of_windows_of_steps(tmp_path: Path, attrs: dict[str, object]) -> None:
    net = Net()
    pooled = net.op("LpPool", net.op("Transpose", first_layer(net, 24), perm=[0, 2, 1]), **attrs)
    y = dense(net, net.op("Transpose", pooled, perm=[0, 2, 1]), 4, 2)
    model = load_model(save(net.model([(y, ["n", None, 2])]), tmp_path))
    arrays = {port.name: RNG.standard_normal((2, 24, 3)).astype(np.float32) for port in model.inputs}
    for name, expected in reference(model, arrays).items():
        found = compile_model(model, "epochcore", ideal=True).run(arrays).outputs[name]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("form", ["product", "einsum", "share"])
@pytest.mark.parametrize("length", ["t", 24])
def test_a_mean_weighted_by_the_time_of_each_step(tmp_path: Path, form: str, length: int | str) -> None:
    """Sum of x_t delta_t over the sum of delta_t, as sets of events are pooled; delta is an input."""
    net = Net()
    delta = net.input(["n", length])
    x, weights = first_layer(net, length), delta
    if form == "share":  # softmax's way: shares of the time first
        weights = net.op("Div", delta, net.op("ReduceSum", delta, net.ints(1), keepdims=1))
    if form == "product":
        total = net.op(
            "ReduceSum", net.op("Mul", x, net.op("Unsqueeze", weights, net.ints(2))), net.ints(1), keepdims=0
        )
    else:
        total = net.op("Einsum", weights, x, equation="bt,btf->bf")
    mean = total if form == "share" else net.op("Div", total, net.op("ReduceSum", delta, net.ints(1), keepdims=1))
    model = load_model(save(net.model([(dense(net, mean, 4, 2), ["n", 2])]), tmp_path))
    assert kinds(model) == [LINEAR]
    arrays = {port.name: RNG.uniform(0.1, 1, (2, 24, *port.shape[2:])).astype(np.float32) for port in model.inputs}
    for target in ("cim", "epochcore"):
        for name, expected in reference(model, arrays).items():
            found = compile_model(model, target, ideal=True).run(arrays).outputs[name]
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
