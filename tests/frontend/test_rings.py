"""The last inputs of a causal convolution in a ring, in one-step models and in loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import on_targets
from tests.frontend.net import Dims, Net, save

WIDTH, TAPS = 3, 4


def ring(how: str, batch: int | str = 1) -> tuple[Net, list[tuple[str, Dims]]]:
    """cache[:, :, pos % 4] = x, the taps taken from pos + 1 on; a moving average behind it."""
    net = Net()
    x, cache = net.input([batch, WIDTH], name="x"), net.input([batch, WIDTH, TAPS], name="cache")
    pos, state = net.input([1], TensorProto.INT64, name="pos"), net.input([batch, WIDTH])
    size, new = net.const(np.int64(TAPS)), net.op("Unsqueeze", x, net.ints(2))
    place = net.op("Mod", pos, size)
    if how in ("where", "turned"):
        kept = net.op("Where", net.op("Equal", net.const(np.arange(TAPS)), place), new, cache)
    else:
        shape = net.ints(1, WIDTH, 1) if batch == 1 else net.op("Shape", new)  # the place is repeated for the samples
        index = net.op("Expand", net.op("Reshape", place, net.ints(1, 1, 1)), shape)
        kept = net.op("ScatterElements", cache, index, new, axis=2)
    next_pos = net.op("Add", pos, net.const(np.int64(1)))
    order = net.op("Mod", net.op("Add", next_pos, net.const(np.arange(TAPS))), size)
    if how == "turned":  # as torch.export leaves kept[..., order]
        rows = net.op("GatherND", net.op("Transpose", kept, perm=[2, 0, 1]), net.op("Unsqueeze", order, net.ints(-1)))
        read = net.op("Transpose", rows, perm=[1, 2, 0])
    else:
        read = net.op("Gather", kept, order, axis=2)
    weights = net.const(RNG.standard_normal((WIDTH, TAPS)))
    if how == "weights":  # turned instead of the ring
        back = net.op("Sub", net.const(np.arange(TAPS)), next_pos)
        read, weights = kept, net.op("Gather", weights, net.op("Mod", back, size), axis=1)
    u = net.op("ReduceSum", net.op("Mul", read, weights), net.ints(2), keepdims=0)
    following = net.op("Add", net.op("Mul", state, net.const(np.array([0.5, 0.7, 0.9]))), u)
    y = net.op("Relu", following)
    return net, [(y, [batch, WIDTH]), (kept, [batch, WIDTH, TAPS]), (following, [batch, WIDTH])]


CASES = [("where", 1), ("scatter", 1), ("where", "b"), ("scatter", "b"), ("turned", "b"), ("weights", "b")]


@pytest.mark.parametrize(("how", "batch"), CASES)
def test_a_ring_is_stepped_at_the_places_that_the_counter_tells(tmp_path: Path, how: str, batch: int | str) -> None:
    """From given states and any place on; each place keeps what it holds but at its turn."""
    net, outputs = ring(how, batch)
    model = load_model(save(net.model(outputs), tmp_path))
    assert model.form == "step" and model.states["cache"] == outputs[1][0]
    samples = 1 if batch == 1 else 3
    for length, start in ((9, 0), (6, 5)):
        places = np.tile(start + np.arange(length), (samples, 1))[..., None]
        arrays = {"x": RNG.standard_normal((samples, length, WIDTH)).astype(np.float32), "pos": places}
        for name in model.states:
            shape = (samples, WIDTH, TAPS) if name == "cache" else (samples, WIDTH)
            arrays[name] = RNG.standard_normal(shape).astype(np.float32)
        expected = reference(model, arrays)
        for target in ("cim", "epochcore"):
            found = compile_model(model, target, ideal=True).run(arrays).outputs
            for name, array in expected.items():
                assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def test_a_counter_that_all_samples_share_may_come_out(tmp_path: Path) -> None:
    """It is one number in the file, beside data with samples, and a step further in the output."""
    net = Net()
    x, state, pos = net.input(["b", WIDTH]), net.input(["b", WIDTH]), net.input([], TensorProto.INT64, name="pos")
    new = net.op("Add", net.op("Mul", state, net.const(np.array([0.5, 0.7, 0.9]))), x)
    count = net.op("Identity", net.op("Add", pos, net.const(np.int64(1))))
    file = net.model([(new, ["b", WIDTH]), (count, [])])
    file.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    model = load_model(save(file, tmp_path))
    assert model.states == {state: new}
    places = np.tile(5 + np.arange(7), (3, 1))
    data = {x: RNG.standard_normal((3, 7, WIDTH)).astype(np.float32)}
    for target in ("cim", "epochcore"):
        for given in (places, places[:1]):
            found = compile_model(model, target, ideal=True).run({**data, "pos": given}).outputs
            assert (found[count] == places + 1).all()
    assert (reference(model, {**data, "pos": places[:1]})[count] == places + 1).all()


def test_what_the_hint_says_is_lifted(tmp_path: Path) -> None:
    """The last steps in their order; that what comes out is as wide as what goes in makes no state of that."""
    net = Net()
    x, cache = net.input([1, WIDTH]), net.input([1, WIDTH, TAPS])
    before = net.op("Slice", cache, net.ints(1), net.ints(TAPS), net.ints(2))
    kept = net.op("Concat", before, net.op("Unsqueeze", x, net.ints(2)), axis=2)
    y = net.op("ReduceSum", net.op("Mul", kept, net.const(RNG.standard_normal((WIDTH, TAPS)))), net.ints(2), keepdims=0)
    model = load_model(save(net.model([(y, [1, WIDTH]), (kept, [1, WIDTH, TAPS])]), tmp_path))
    assert model.form == "step" and list(model.states) == [cache]


@pytest.mark.parametrize("read", ["by age", "all", "oldest"])
def test_a_ring_within_a_loop(tmp_path: Path, read: str) -> None:
    """A causal filter, a mean, and a difference over four steps, from a buffer that the number of the step turns."""
    net, body = Net(), Net()
    x, dims = net.input(["b", "t", WIDTH]), ["b", WIDTH, TAPS]
    k, going, cache = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL), body.input(dims)
    u, size = body.op("Gather", x, k, axis=1), body.const(np.int64(TAPS))
    place, new = body.op("Mod", k, size), body.op("Unsqueeze", u, body.ints(2))
    kept = body.op("Where", body.op("Equal", body.const(np.arange(TAPS)), place), new, cache)
    if read == "by age":
        order = body.op("Mod", body.op("Add", k, body.const(1 + np.arange(TAPS))), size)
        taps = body.op("Gather", kept, order, axis=2)
        y = body.op("ReduceSum", body.op("Mul", taps, body.const(np.arange(1.0, 5.0))), body.ints(2), keepdims=0)
    elif read == "all":
        y = body.op("ReduceMean", kept, body.ints(2), keepdims=0)
    else:
        y = body.op("Sub", u, body.op("Gather", cache, place, axis=2))
    on = body.op("Identity", going)
    graph = body.subgraph([(on, []), (kept, dims), (y, ["b", WIDTH])], {on: TensorProto.BOOL})
    count = net.op("Squeeze", net.op("Shape", x, start=1, end=2), net.ints(0))
    zero = net.op("ConstantOfShape", net.op("Concat", net.op("Shape", x, end=1), net.ints(WIDTH, TAPS), axis=0))
    y = net.op("Transpose", net.op("Loop", count, "", zero, outputs=2, body=graph)[1], perm=[1, 0, 2])
    model = load_model(save(net.model([(net.op("Tanh", y), ["b", "t", WIDTH])]), tmp_path))
    for batch, length in ((2, 9), (1, 14)):
        on_targets(model, batch, length)
