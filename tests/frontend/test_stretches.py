"""Parts of a sequence and windows over it: some steps, differences, overlapping windows, poolings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.frontend import load_model
from ssmc.frontend.source.evaluate import run_call
from ssmc.frontend.source.importer import import_model
from ssmc.frontend.source.listing import list_calls
from ssmc.frontend.source.proto import read_model
from tests.examples import examples
from tests.frontend.blocks import RNG, decaying, dense, first_layer
from tests.frontend.checks import on_targets, refused
from tests.frontend.net import Net, save

Build = Callable[[Net, str], str]


def part(start: int, stop: int, step: int = 1) -> Build:
    return lambda net, x: net.op("Slice", x, net.ints(start), net.ints(stop), net.ints(1), net.ints(step))


def flat(build: Build, steps: int) -> Build:
    """A head that sees so many steps at once."""
    return lambda net, x: dense(net, net.op("Reshape", build(net, x), net.ints(-1, 4 * steps)), 4 * steps, 4)


def mean(build: Build) -> Build:
    return lambda net, x: net.op("ReduceMean", net.op("Tanh", build(net, x)), net.ints(1), keepdims=0)


def taken(*steps: int) -> Build:
    return lambda net, x: net.op("Gather", x, net.const(np.asarray(steps, np.int64)), axis=1)


def one_step(net: Net, x: str) -> str:
    return net.op("Gather", x, net.const(np.int64(6)), axis=1)


def difference(net: Net, x: str) -> str:
    return net.op("Sub", part(1, 1 << 40)(net, x), part(0, -1)(net, x))


def second_difference(net: Net, x: str) -> str:
    ends = net.op("Add", part(2, 1 << 40)(net, x), part(0, -2)(net, x))
    return net.op("Sub", ends, net.op("Mul", part(1, -1)(net, x), net.const(2.0)))


def to_the_last_but_one(net: Net, x: str) -> str:
    """The end is computed from the length."""
    size = net.op("Gather", net.op("Shape", x), net.ints(1), axis=0)
    return net.op("Slice", x, net.ints(0), net.op("Sub", size, net.ints(1)), net.ints(1))


ANY_LENGTH: dict[str, Build] = {
    "the first": flat(part(0, 5), 5),
    "the first on average": mean(part(0, 5)),
    "some": mean(part(3, 8)),
    "every second of some": flat(part(1, 9, 2), 4),
    "one": one_step,
    "several": flat(taken(7, 0, 3), 3),
    "all but the last": mean(part(0, -3)),
    "all but the ends": mean(part(2, -3)),
    "computed end": mean(to_the_last_but_one),
    "difference": mean(difference),
    "second difference": mean(second_difference),
}
TRACED: dict[str, Build] = {"most of them": mean(part(0, 20)), "a third": mean(part(8, 20))}


@pytest.mark.parametrize("form", [*ANY_LENGTH, *TRACED])
@pytest.mark.parametrize("length", [24, "t"])
def test_some_of_the_steps(tmp_path: Path, form: str, length: int | str) -> None:
    if length == "t" and form in TRACED:
        return
    net = Net()
    y = {**ANY_LENGTH, **TRACED}[form](net, first_layer(net, length))
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    for steps in (24, 31) if length == "t" else (24,):
        on_targets(model, 2, steps)


def test_a_system_over_the_differences(tmp_path: Path) -> None:
    net = Net()
    y = decaying(net, net.op("Tanh", difference(net, first_layer(net))), 4)
    model = load_model(save(net.model([(y, ["n", "s", 4])]), tmp_path))
    on_targets(model, 2, 24)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_windows_of_steps(tmp_path: Path, stride: int) -> None:
    """torch.unfold by the dynamo exporter: a table of positions."""
    net = Net()
    index = stride * np.arange((24 - 4) // stride + 1)[:, None] + np.arange(4)
    windows = net.op("Gather", first_layer(net, 24), net.const(index), axis=1)
    x = dense(net, net.op("Reshape", windows, net.ints(0, len(index), 16)), 16, 4)
    y = net.op("ReduceMean", net.op("Tanh", x), net.ints(1), keepdims=0)
    on_targets(load_model(save(net.model([(y, ["n", 4])]), tmp_path)), 2, 24)


POOLS = st.fixed_dictionaries(
    {"reach": st.integers(1, 7), "stride": st.integers(1, 4), "left": st.integers(0, 3), "right": st.integers(0, 3)}
)


def pooled(folder: Path, length: int | str, reach: int, stride: int, left: int, right: int, broken: bool) -> None:
    net = Net()
    x = net.op("Transpose", first_layer(net, length), perm=[0, 2, 1])
    attrs = {"kernel_shape": [reach], "strides": [stride], "pads": [left, right], "ceil_mode": int(broken)}
    y = net.op("ReduceMean", net.op("MaxPool", x, **attrs), net.ints(2), keepdims=0)
    model = load_model(save(net.model([(y, ["n", 4])]), folder))
    for steps in (24, 31) if length == "t" else (24,):
        on_targets(model, 2, steps)


@pytest.mark.parametrize(("reach", "stride", "left", "right"), [(3, 1, 1, 1), (3, 2, 1, 1), (4, 1, 3, 0), (2, 1, 0, 1)])
def test_maximum_of_overlapping_windows(tmp_path: Path, reach: int, stride: int, left: int, right: int) -> None:
    pooled(tmp_path, "t", reach, stride, left, right, broken=False)


def test_maximum_with_a_broken_last_window(tmp_path: Path) -> None:
    pooled(tmp_path, 24, 3, 2, 0, 0, broken=True)


@settings(max_examples=examples(60), deadline=None)
@given(POOLS, st.integers(8, 20), st.booleans())
def test_maxima_are_those_of_onnxruntime(
    tmp_path_factory: pytest.TempPathFactory, sizes: dict[str, int], length: int, broken: bool
) -> None:
    """How the importer computes a MaxPool."""
    import onnxruntime

    reach = max(sizes["reach"], sizes["left"] + 1, sizes["right"] + 1)
    net = Net()
    u = net.input([2, 3, length])
    attrs = {"kernel_shape": [reach], "strides": [sizes["stride"]], "pads": [sizes["left"], sizes["right"]]}
    y = net.op("MaxPool", u, ceil_mode=int(broken), **attrs)
    model = net.model([(y, [2, 3, "s"])])
    path = save(model, tmp_path_factory.mktemp("pool"))
    array = RNG.standard_normal((2, 3, length)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(path.read_bytes()).run(None, {u: array})
    (call,) = [c for c in list_calls(import_model(read_model(path), path)).calls if c.kind == "MaxPool"]
    (found,) = run_call(call, [array])
    assert np.array_equal(found, expected)


EDGES = {"causal": ([4, 0], 1, 2), "both": ([1, 1], 1, 1), "strided": ([2, 0], 2, 1), "each channel": ([2, 0], 1, 1)}


@pytest.mark.parametrize("form", EDGES)
@pytest.mark.parametrize("length", [24, "t"])
def test_convolutions_that_repeat_the_ends(tmp_path: Path, form: str, length: int | str) -> None:
    """F.pad(mode="replicate") in front of a convolution."""
    (left, right), stride, dilation = EDGES[form]
    net, own = Net(), form == "each channel"
    x = net.op("Transpose", first_layer(net, length), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, left, 0, 0, right), mode="edge")
    kernel = net.const(RNG.standard_normal((4, 1 if own else 4, 3)))
    attrs = {"strides": [stride], "dilations": [dilation], "group": 4 if own else 1}
    y = net.op("Tanh", net.op("Conv", padded, kernel, net.const(RNG.standard_normal(4)), **attrs))
    y = net.op("ReduceMean", decaying(net, net.op("Transpose", y, perm=[0, 2, 1]), 4), net.ints(1), keepdims=0)
    model = load_model(save(net.model([(y, ["n", 4])]), tmp_path))
    for steps in (24, 31) if length == "t" else (24,):
        on_targets(model, 2, steps)


@pytest.mark.parametrize("rounded", [False, True])
def test_an_unrolled_loop_that_is_no_system_is_not_taken_step_by_step(tmp_path: Path, rounded: bool) -> None:
    """x_k = f(a x_{k-1} + u_k), f a hyperbolic tangent or, as onnxruntime quantises, a rounding a step."""
    net = Net()
    u, decay, zero = first_layer(net, 12), net.const(RNG.uniform(0.5, 0.9, 4)), net.const(np.int8(0))
    x, states = net.op("Gather", u, net.const(np.int64(0)), axis=1), []
    for k in range(1, 12):
        x = net.op("Add", net.op("Mul", decay, x), net.op("Gather", u, net.const(np.int64(k)), axis=1))
        scale = net.const(np.float32(0.05 + 0.001 * k))
        rounding = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
        x = rounding if rounded else net.op("Tanh", x)
        states.append(net.op("Unsqueeze", x, net.ints(1)))
    path = save(net.model([(net.op("Concat", *states, axis=1), ["n", 11, 4])]), tmp_path)
    refused(path, "quantise the weights alone" if rounded else "the next state is not a linear function of the state")
