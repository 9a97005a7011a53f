"""What every step needs and only the last one tells: norms over time, gates by means: another run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmc.driver import compile_model
from ssmc.frontend import load_model
from ssmc.frontend.simplify.afterwards import late_values
from tests.examples import examples
from tests.frontend.blocks import RNG, decaying, dense, first_layer
from tests.frontend.checks import LINEAR, kinds, on_targets
from tests.frontend.net import Net, save

Build = Callable[[Net, str], str]


def excited(net: Net, x: str) -> str:
    """Squeeze and excitation: every step is scaled by what the mean over all of them says."""
    return net.op("Mul", x, net.op("Sigmoid", net.op("ReduceMean", x, net.ints(1), keepdims=1)))


def covariance(net: Net, x: str) -> str:
    return net.op("MatMul", x, net.op("MatMul", net.op("Transpose", x, perm=[0, 2, 1]), x))


def centred(net: Net, x: str) -> str:
    """What is forecast relative to the last step (NLinear) and scaled by the deviation (RevIN)."""
    mean = net.op("ReduceMean", x, net.ints(1), keepdims=1)
    moved = net.op("Sub", x, mean)
    variance = net.op("ReduceMean", net.op("Mul", moved, moved), net.ints(1), keepdims=1)
    last = net.op("Slice", x, net.ints(-1), net.ints(1 << 40), net.ints(1))
    scaled = net.op("Div", moved, net.op("Sqrt", net.op("Add", variance, net.const(1e-5))))
    return net.op("Sub", scaled, net.op("Tanh", last))


def attended(net: Net, x: str) -> str:
    """A summary by softmax over time, added to every step."""
    weights = net.op("Softmax", dense(net, x, 4, 1), axis=1)
    return net.op("Add", x, net.op("ReduceSum", net.op("Mul", weights, x), net.ints(1), keepdims=1))


def weighed(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Softmax", x, axis=1))


def across(norm: Callable[[Net, str], str]) -> Build:
    """A norm of (batch, channels, time)."""

    def build(net: Net, x: str) -> str:
        return net.op("Transpose", norm(net, net.op("Transpose", x, perm=[0, 2, 1])), perm=[0, 2, 1])

    return build


def parameters(net: Net, count: int) -> tuple[str, str]:
    return net.const(RNG.uniform(0.5, 1.5, count)), net.const(RNG.standard_normal(count))


def instance(net: Net, x: str) -> str:
    return str(net.op("InstanceNormalization", x, *parameters(net, 4), epsilon=1e-3))


def groups_by_reshape(net: Net, x: str) -> str:
    """GroupNorm as both exporters write it below opset 21: groups and all their steps as one axis."""
    flat = net.op("Reshape", x, net.ints(0, 2, -1))
    normal = net.op("InstanceNormalization", flat, net.const(np.ones(2)), net.const(np.zeros(2)))
    back = net.op("Reshape", normal, net.op("Shape", x))
    scale, shift = (net.const(RNG.standard_normal((4, 1))) for _ in range(2))
    return net.op("Add", net.op("Mul", back, scale), shift)


def one_group(net: Net, x: str) -> str:
    flat = net.op("Reshape", x, net.ints(0, 1, -1))
    normal = net.op("InstanceNormalization", flat, *parameters(net, 1))
    return net.op("Reshape", normal, net.op("Shape", x))


def groups(net: Net, x: str) -> str:
    return str(net.op("GroupNormalization", x, *parameters(net, 2), num_groups=2))


def of_steps(net: Net, x: str) -> str:
    """LayerNorm(length), a scale and a shift a step."""
    return str(net.op("LayerNormalization", x, *parameters(net, 24), axis=-1))


def of_all(net: Net, x: str) -> str:
    """LayerNorm([channels, length])."""
    scale, shift = (net.const(RNG.standard_normal((4, 24))) for _ in range(2))
    return str(net.op("LayerNormalization", x, scale, shift, axis=-2))


ANY_LENGTH: dict[str, tuple[Build, int]] = {
    "excited": (excited, 2),
    "covariance": (covariance, 2),
    "centred": (centred, 3),
    "attended": (attended, 3),  # the largest score, then the sum of the exponentials
    "weighed": (weighed, 3),
    "weighed within bounds": (lambda net, x: weighed(net, net.op("Tanh", x)), 2),
    "instance": (across(instance), 3),
    "groups": (across(groups), 3),
    "groups by a reshape": (across(groups_by_reshape), 3),
    "one group": (across(one_group), 3),
}
TRACED: dict[str, tuple[Build, int]] = {"of steps": (across(of_steps), 3), "of all": (across(of_all), 3)}


@pytest.mark.parametrize("form", [*ANY_LENGTH, *TRACED])
@pytest.mark.parametrize("length", [24, "t"])
def test_the_sequence_is_run_through_again(tmp_path: Path, form: str, length: int | str) -> None:
    if length == "t" and form in TRACED:
        return
    build, runs = {**ANY_LENGTH, **TRACED}[form]
    net = Net()
    y = decaying(net, build(net, first_layer(net, length)), 4)
    model = load_model(save(net.model([(y, ["n", length, 4])]), tmp_path))
    assert set(kinds(model)) == {LINEAR}
    assert any(f"run through {runs} times" in note for note in model.notes)
    for steps in (24, 37) if length == "t" else (24,):
        on_targets(model, 2, steps)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "ReduceLogSumExp"])
def test_exponentials_of_large_scores(tmp_path: Path, kind: str) -> None:
    """Scores of a hundred and more: their exponentials are no float32 numbers."""
    net = Net()
    x = net.op("Mul", first_layer(net), net.const(30.0))
    if kind == "ReduceLogSumExp":
        y = net.op("Sub", x, net.op("ReduceLogSumExp", x, net.ints(1), keepdims=1))
    else:
        y = net.op(kind, x, axis=1)
    path = save(net.model([(decaying(net, y, 4), ["n", "t", 4])]), tmp_path)
    model = load_model(path)
    on_targets(model, 2, 24)
    u = RNG.standard_normal((2, 24, model.inputs[0].type.shape[0])).astype(np.float32)
    for target in ("cim", "epochcore"):
        (y_quantised,) = compile_model(model, target).run({model.inputs[0].name: u}).outputs.values()
        assert np.isfinite(y_quantised).all()


def test_a_large_mean_is_taken_off_before_squares_are_summed(tmp_path: Path) -> None:
    """In float32 the mean of the squares less the square of the mean would keep three digits of this variance."""
    net = Net()
    x = net.op("Add", net.op("Mul", first_layer(net), net.const(0.01)), net.const(np.full(4, 30.0)))
    y = decaying(net, across(instance)(net, x), 4)
    model = load_model(save(net.model([(y, ["n", "t", 4])]), tmp_path))
    assert 1 + max(late_values(model.graph).run.values()) == 3


def test_what_only_sums_need_takes_no_run(tmp_path: Path) -> None:
    """A head of statistics behind a norm over time: the norm's runs, and one for all sums."""
    net = Net()
    x = decaying(net, across(instance)(net, first_layer(net)), 4)
    mean = net.op("ReduceMean", x, net.ints(1), keepdims=1)
    moved = net.op("Sub", x, mean)
    variance = net.op("ReduceMean", net.op("Mul", moved, moved), net.ints(1), keepdims=0)
    y = net.op("Concat", net.op("Squeeze", mean, net.ints(1)), net.op("Sqrt", variance), axis=1)
    model = load_model(save(net.model([(y, ["n", 8])]), tmp_path))
    assert any("run through 3 times" in note for note in model.notes)
    on_targets(model, 2, 31)


@settings(max_examples=examples(12), deadline=None)
@given(st.lists(st.sampled_from(sorted(ANY_LENGTH)), min_size=1, max_size=3), st.booleans())
def test_blocks_in_any_order(tmp_path_factory: pytest.TempPathFactory, forms: list[str], pooled: bool) -> None:
    net = Net()
    x = first_layer(net)
    for form in forms:
        x = net.op("Add", x, decaying(net, net.op("Tanh", ANY_LENGTH[form][0](net, x)), 4))
    y = net.op("ReduceMean", x, net.ints(1), keepdims=0) if pooled else x
    dims: list[int | str] = ["n", 4] if pooled else ["n", "t", 4]
    model = load_model(save(net.model([(y, dims)]), tmp_path_factory.mktemp("forms")))
    assert set(kinds(model)) == {LINEAR}
    on_targets(model, 2, 29)
