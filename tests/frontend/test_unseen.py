"""Patterns of real exports: what exporters write around and inside the systems, graph by graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import load_model, reference
from tests.frontend.blocks import RNG
from tests.frontend.checks import kinds, lift
from tests.frontend.net import Net, save


def modes(channels: int, count: int, length: int) -> np.ndarray:
    """Kernels (channels, length) of complex pairs."""
    poles = RNG.uniform(0.6, 0.95, (channels, count)) * np.exp(1j * RNG.uniform(0.1, 2.0, (channels, count)))
    weights = RNG.standard_normal((channels, count)) + 1j * RNG.standard_normal((channels, count))
    return np.asarray(np.einsum("hn,hnl->hl", weights, poles[..., None] ** np.arange(length)).real)


def test_a_spectrum_stored_in_float32_has_no_future(tmp_path: Path) -> None:
    length, net = 24, Net()
    spectrum = np.fft.rfft(modes(3, 2, length), 2 * length)
    x = net.op("Transpose", net.input([2, length, 3]), perm=[0, 2, 1])
    padded = net.op("Pad", x, net.ints(0, 0, 0, 0, 0, length))
    u = net.op("DFT", net.op("Unsqueeze", padded, net.ints(3)), "", net.const(np.int64(2)), onesided=1)
    ur, ui = (net.op("Gather", u, net.const(np.int64(i)), axis=3) for i in (0, 1))
    hr, hi = net.const(spectrum.real), net.const(spectrum.imag)
    yr = net.op("Sub", net.op("Mul", ur, hr), net.op("Mul", ui, hi))
    yi = net.op("Add", net.op("Mul", ur, hi), net.op("Mul", ui, hr))
    # the negative frequencies by symmetry, as exporters write them that have no one-sided inverse
    back = net.ints(*range(length - 1, 0, -1))
    mirrored = [net.op("Gather", yr, back, axis=2), net.op("Neg", net.op("Gather", yi, back, axis=2))]
    whole = [net.op("Concat", a, b, axis=2) for a, b in zip((yr, yi), mirrored, strict=True)]
    both = net.op("Concat", *(net.op("Unsqueeze", w, net.ints(3)) for w in whole), axis=3)
    full = net.op("DFT", both, "", net.const(np.int64(2)), inverse=1)
    real = net.op("Gather", full, net.const(np.int64(0)), axis=3)
    y = net.op("Transpose", net.op("Slice", real, net.ints(0), net.ints(length), net.ints(2)), perm=[0, 2, 1])
    model = lift(net, y, [2, length, 3], tmp_path)
    assert [s.reverse for s in model.systems] == [False]
    assert kinds(model) == ["linear time-invariant"]


def test_toeplitz_product_with_the_batch_as_columns(tmp_path: Path) -> None:
    length, net = 24, Net()
    taps = modes(3, 2, length)
    lags = np.arange(length)[:, None] - np.arange(length)
    table = net.const(np.where(lags >= 0, taps[:, np.maximum(lags, 0)], 0.0))
    x = net.op("Mul", net.input([2, length, 3]), net.const(np.ones(3) * 0.7))
    y = net.op("MatMul", table, net.op("Transpose", x, perm=[2, 1, 0]))
    model = lift(net, net.op("Transpose", y, perm=[2, 1, 0]), [2, length, 3], tmp_path)
    assert kinds(model) == ["linear time-invariant"]


@pytest.mark.parametrize("inputs", [3, 5])
def test_doubling_scan_with_zeros_shaped_like_a_slice(tmp_path: Path, inputs: int) -> None:
    """Hillis-Steele: x + a^d shift(x, d), complex, the zeros by Shape and Expand, as the dynamo exporter writes it."""
    length, count, net = 24, 4, Net()
    pole = RNG.uniform(0.6, 0.9, count) * np.exp(1j * RNG.uniform(0.2, 1.5, count))
    u = net.input(["n", length, inputs])
    parts = [net.op("MatMul", u, net.const(RNG.standard_normal((inputs, count)))) for _ in range(2)]
    step = 1
    while step < length:
        shifted = []
        for x in parts:
            head = net.op("Slice", x, net.ints(0), net.ints(step), net.ints(1))
            zeros = net.op("Expand", net.const(np.zeros(())), net.op("Shape", head))
            tail = net.op("Slice", x, net.ints(0), net.ints(-step), net.ints(1))
            shifted.append(net.op("Concat", zeros, tail, axis=1))
        re, im = net.const((pole**step).real), net.const((pole**step).imag)
        real = net.op("Add", parts[0], net.op("Mul", re, shifted[0]))
        imag = net.op("Add", parts[1], net.op("Mul", re, shifted[1]))
        parts = [
            net.op("Sub", real, net.op("Mul", im, shifted[1])),
            net.op("Add", imag, net.op("Mul", im, shifted[0])),
        ]
        step *= 2
    y = net.op("Sub", *(net.op("MatMul", x, net.const(RNG.standard_normal((count, 2)))) for x in parts))
    model = lift(net, y, ["n", length, 2], tmp_path)
    assert kinds(model) == ["linear time-invariant"]
    assert model.systems[0].states in (count, 2 * count)


@pytest.mark.parametrize("length", [24, "t"])
@pytest.mark.parametrize("folded", [True, False])
def test_cumulative_sum_against_growing_weights(tmp_path: Path, length: int | str, folded: bool) -> None:
    """x_k = exp(k log a) sum_j exp(-j log a) v_j, the weights stored or from the shape; never an integrator."""
    if folded and length == "t":
        return
    net = Net()
    u = net.input(["n", length, 3])
    v = net.op("MatMul", u, net.const(RNG.standard_normal((3, 4))))
    logs = np.log(RNG.uniform(0.6, 0.9, 4))
    if folded:
        table = np.arange(24)[:, None] * logs
        before, behind = net.const(np.exp(-table)), net.const(np.exp(table))
    else:
        size = net.op("Gather", net.op("Shape", u), net.const(np.int64(1)), axis=0)
        steps = net.op("Range", net.const(np.int64(0)), size, net.const(np.int64(1)))
        exponent = net.op("Mul", net.op("Unsqueeze", net.op("Cast", steps, to=1), net.ints(1)), net.const(logs))
        before, behind = net.op("Exp", net.op("Neg", exponent)), net.op("Exp", exponent)
    x = net.op("Mul", behind, net.op("CumSum", net.op("Mul", v, before), net.const(np.int64(1))))
    y = net.op("MatMul", x, net.const(RNG.standard_normal((4, 2))))
    model = lift(net, y, ["n", length, 2], tmp_path, *([(2, 24)] if length == 24 else [(2, 24), (3, 60)]))
    assert kinds(model) == ["linear time-invariant"]
    assert not list(model.graph.nodes("embed"))
    constants = model.systems[0].time_constants
    assert constants is not None and np.allclose(np.sort(constants.reshape(-1)), np.sort(-1 / logs), rtol=1e-4)


def scanned(net: Net, v: str, decay: np.ndarray) -> str:
    """x_k = decay x_{k-1} + v_k for v (batch, time, *decay.shape), by a Scan."""
    rank = decay.ndim + 2
    swap = [1, 0, *range(2, rank)]
    body = Net()
    names = [f"{chr(97 + i)}" for i in range(decay.ndim)]
    x, u = body.input(["n", *names]), body.input(["n", *names])
    new = body.op("Add", body.op("Mul", x, body.const(decay)), u)
    out = body.op("Identity", new)
    first = net.op("Gather", v, net.const(np.int64(0)), axis=1)
    zeros = net.op("Mul", first, net.const(np.zeros(())))
    graph = body.subgraph([(new, ["n", *names]), (out, ["n", *names])])
    _, y = net.op("Scan", zeros, net.op("Transpose", v, perm=swap), outputs=2, body=graph, num_scan_inputs=1)
    return net.op("Transpose", y, perm=swap)


def shape_like(net: Net, x: str, *dims: int) -> str:
    """(batch, time, *dims), as exporters compute it."""
    return net.op("Concat", net.op("Shape", x, start=0, end=2), net.ints(*dims), axis=0)


@pytest.mark.parametrize("batch", ["n", 1])
def test_group_norm_over_batch_and_time_as_one_axis(tmp_path: Path, batch: int | str) -> None:
    net = Net()
    x = net.input([batch, "t" if batch == "n" else 12, 4])
    y = scanned(net, x, RNG.uniform(0.5, 0.9, 4))
    flat = net.op("Reshape", y, net.ints(-1, 2, 2))
    normal = net.op("InstanceNormalization", flat, net.const(np.ones(2)), net.const(np.zeros(2)))
    y = net.op("Reshape", net.op("Reshape", normal, net.ints(-1, 4)), shape_like(net, x, 4))
    sizes = [(2, 24), (3, 13)] if batch == "n" else [(1, 12)]
    model = lift(net, y, [batch, "t", 4], tmp_path, *sizes)
    assert kinds(model) == ["linear time-invariant"]


def test_an_output_with_batch_and_time_as_one_axis_is_refused(tmp_path: Path) -> None:
    net = Net()
    y = scanned(net, net.input(["n", "t", 4]), RNG.uniform(0.5, 0.9, 4))
    with pytest.raises(UserError, match="batch and time are one axis"):
        load_model(save(net.model([(net.op("Reshape", y, net.ints(-1, 4)), ["m", 4])]), tmp_path))


def conv_s5() -> tuple[Net, str]:
    """B and C are convolutions of images, applied to (batch * time, channels, height, width)."""
    net = Net()
    x = net.input(["n", "t", 2, 4, 4])
    b = net.const(RNG.standard_normal((3, 2, 3, 3)))
    c = net.const(RNG.standard_normal((2, 3, 3, 3)))
    v = net.op("Conv", net.op("Reshape", x, net.ints(-1, 2, 4, 4)), b, pads=[1, 1, 1, 1])
    v = net.op("Reshape", v, shape_like(net, x, 3, 4, 4))
    y = scanned(net, v, RNG.uniform(0.5, 0.9, (3, 1, 1)) * np.ones((3, 4, 4)))
    y = net.op("Conv", net.op("Reshape", y, net.ints(-1, 3, 4, 4)), c, net.const(np.ones(2)), pads=[1, 1, 1, 1])
    return net, net.op("Reshape", y, shape_like(net, x, 2, 4, 4))


def test_image_valued_streams_through_convolutions(tmp_path: Path) -> None:
    """ConvS5."""
    assert kinds(lift(*conv_s5(), ["n", "t", 2, 4, 4], tmp_path, (2, 9), (3, 6))) == ["linear time-invariant"]


@pytest.mark.parametrize("pooling", ["reshape", "pick", "average", "maximum"])
def test_event_pooling(tmp_path: Path, pooling: str) -> None:
    """The last state of every window of four, and the skip connection pooled in each way."""
    net = Net()
    x = net.input(["n", 16, 3])
    state = scanned(net, x, RNG.uniform(0.5, 0.9, 3))
    taken = net.op("Slice", state, net.ints(3), net.ints(16), net.ints(1), net.ints(4))
    if pooling in ("reshape", "pick"):
        windows = net.op("Reshape", x, net.ints(-1, 4, 4, 3))
        if pooling == "reshape":
            skip = net.op("ReduceMean", windows, net.ints(2), keepdims=0)
        else:
            skip = net.op("Gather", windows, net.const(np.int64(2)), axis=2)
    else:
        kind = "AveragePool" if pooling == "average" else "MaxPool"
        turned = net.op("Transpose", x, perm=[0, 2, 1])
        pooled = net.op(kind, turned, kernel_shape=[4], strides=[4], pads=[0, 0], auto_pad="NOTSET")
        skip = net.op("Transpose", pooled, perm=[0, 2, 1])
    y = net.op("Add", net.op("MatMul", taken, net.const(RNG.standard_normal((3, 3)))), skip)
    lift(net, y, ["n", 4, 3], tmp_path, (2, 16))
    if pooling == "pick":
        return  # rates that differ where the length is no whole number of windows
    x16 = RNG.standard_normal((2, 16, 3)).astype(np.float32)
    (name,) = (i.name for i in net.inputs)
    expected = reference(load_model(tmp_path / "model.onnx"), {name: x16})
    for target in ("cim", "epochcore"):
        found = compile_model(load_model(tmp_path / "model.onnx"), target, ideal=True).run({name: x16}).outputs
        for key, array in expected.items():
            assert np.abs(found[key] - array).max() <= 1e-4 * np.abs(array).max()


def test_a_filter_longer_than_the_usual_sample_of_a_dynamic_length(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Transpose", net.input(["n", "t", 3]), perm=[0, 2, 1])
    taps = net.const(modes(3, 2, 24)[:, None, ::-1])
    y = net.op("Conv", net.op("Pad", x, net.ints(0, 0, 23, 0, 0, 0)), taps, group=3)
    model = lift(net, net.op("Transpose", y, perm=[0, 2, 1]), ["n", "t", 3], tmp_path, (2, 60), (3, 13))
    assert kinds(model) == ["fir"]  # it ends after 24 taps, at any length


def test_a_gate_between_two_filters(tmp_path: Path) -> None:
    """H3: a filter, a product with another stream, another filter."""
    length, net = 24, Net()
    u = net.input(["n", length, 3])
    k, v, q = (net.op("MatMul", u, net.const(RNG.standard_normal((3, 3)))) for _ in range(3))

    def filtered(x: str) -> str:
        taps = net.const(modes(3, 1, length)[:, None, ::-1])
        turned = net.op("Pad", net.op("Transpose", x, perm=[0, 2, 1]), net.ints(0, 0, length - 1, 0, 0, 0))
        return net.op("Transpose", net.op("Conv", turned, taps, group=3), perm=[0, 2, 1])

    y = net.op("Mul", q, filtered(net.op("Mul", filtered(k), v)))
    assert kinds(lift(net, y, ["n", length, 3], tmp_path)) == ["linear time-invariant"] * 2


@pytest.mark.parametrize("form", ["parallel", "chunked"])
def test_retention(tmp_path: Path, form: str) -> None:
    """y = (q k^T * D) v, D a table of powers of each head's decay, whole or by chunks (RetNet, equations 5 and 7)."""
    length, heads, width, net = 24, 2, 3, Net()
    decay, scale = np.array([0.7, 0.99]), 0.3

    def powers(size: int) -> np.ndarray:
        lags = np.arange(size)[:, None] - np.arange(size)
        return np.where(lags >= 0, decay[:, None, None] ** np.maximum(lags, 0), 0.0)

    u = net.input(["n", length, 5])
    shape = net.ints(0, 0, heads, width)
    q, k, v = (
        net.op(
            "Transpose",
            net.op("Reshape", net.op("MatMul", u, net.const(RNG.standard_normal((5, heads * width)))), shape),
            perm=[0, 2, 1, 3],
        )
        for _ in range(3)
    )

    def inner(q: str, k: str, v: str, size: int) -> str:
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        return net.op("MatMul", net.op("Mul", scores, net.const(scale * powers(size))), v)

    if form == "parallel":
        y = inner(q, k, v, length)
    else:
        chunk, state, found = 8, "", []
        for start in range(0, length, chunk):
            parts = [net.op("Slice", x, net.ints(start), net.ints(start + chunk), net.ints(2)) for x in (q, k, v)]
            y = inner(*parts, chunk)
            lags = np.arange(chunk)
            if state:
                cross = net.op("MatMul", parts[0], state)
                y = net.op(
                    "Add", y, net.op("Mul", cross, net.const(scale * decay[:, None, None] ** (lags[:, None] + 1)))
                )
            weighted = net.op("Mul", parts[2], net.const(decay[:, None, None] ** (chunk - 1 - lags[:, None])))
            new = net.op("MatMul", net.op("Transpose", parts[1], perm=[0, 1, 3, 2]), weighted)
            kept = net.op("Mul", state, net.const(decay[:, None, None] ** chunk)) if state else ""
            state = net.op("Add", new, kept) if state else new
            found.append(y)
        y = net.op("Concat", *found, axis=2)
    model = lift(net, net.op("Transpose", y, perm=[0, 2, 1, 3]), ["n", length, heads, width], tmp_path)
    assert kinds(model) == ["linear time-invariant"]
    assert model.systems[0].groups * model.systems[0].states == heads * width * width


def test_state_space_duality_in_one_chunk(tmp_path: Path) -> None:
    """Mamba-2 with all steps in one chunk: decays are repeated along a new axis, masked and summed (SSD, listing 1)."""
    length, heads, width, states, net = 12, 2, 3, 2, Net()
    u = net.input(["n", length, 5])

    def projected(*shape: int) -> str:
        y = net.op("MatMul", u, net.const(RNG.standard_normal((5, int(np.prod(shape))))))
        return net.op("Reshape", y, net.ints(0, 0, *shape))

    b, c, x = projected(1, states), projected(1, states), projected(heads, width)
    log = net.op("Transpose", net.op("Neg", net.op("Softplus", projected(heads))), perm=[0, 2, 1])
    rows = net.op("Concat", net.op("Shape", log), net.ints(length), axis=0)
    repeated = net.op("Expand", net.op("Unsqueeze", log, net.ints(-1)), rows)
    below = np.tril(np.ones((length, length), bool))
    masked = net.op("Where", net.const(np.tril(below, -1)), repeated, net.const(np.zeros(())))
    total = net.op("CumSum", masked, net.const(np.int64(-2)))
    decay = net.op("Exp", net.op("Where", net.const(below), total, net.const(np.asarray(-np.inf))))
    y = net.op("Einsum", c, b, decay, x, equation="blgn,bsgn,bhls,bshp->blhp")
    assert kinds(lift(net, y, ["n", length, heads, width], tmp_path, (2, length))) == ["selective"]


def test_attention_is_named(tmp_path: Path) -> None:
    net = Net()
    u = scanned(net, net.input(["n", 12, 4]), RNG.uniform(0.5, 0.9, 4))
    q, k, v = (net.op("MatMul", u, net.const(RNG.standard_normal((4, 3)))) for _ in range(3))
    weights = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    with pytest.raises(UserError, match="attention"):
        load_model(save(net.model([(net.op("MatMul", weights, v), ["n", 12, 3])]), tmp_path))


def test_a_file_that_overflows_is_lifted_with_a_note(tmp_path: Path) -> None:
    """exp(-k log a) leaves float32 after a hundred steps; the recurrence that it stands for does not."""
    net = Net()
    v = net.op("MatMul", net.input(["n", 120, 3]), net.const(RNG.standard_normal((3, 2))))
    exponent = net.const(np.arange(120)[:, None] * np.array([-0.9, -0.8]))
    total = net.op("CumSum", net.op("Mul", v, net.op("Exp", net.op("Neg", exponent))), net.const(np.int64(1)))
    y = net.op("Mul", net.op("Exp", exponent), total)
    model = load_model(save(net.model([(y, ["n", 120, 2])]), tmp_path))
    assert "no finite numbers" in model.notes[0]
    assert kinds(model) == ["linear time-invariant"]


@pytest.mark.parametrize("stored", [True, False])
def test_positions_at_a_dynamic_length(tmp_path: Path, stored: bool) -> None:
    """A table that is sliced to the length, or ramps made of it: known beyond the sample length."""
    net = Net()
    x = net.input(["n", "t", 3])
    size = net.op("Shape", x, start=1, end=2)
    if stored:
        rows = net.op("Slice", net.const(RNG.standard_normal((40, 3))), net.ints(0), size, net.ints(0))
    else:
        steps = net.op("Range", net.const(np.int64(0)), net.op("Squeeze", size), net.const(np.int64(1)))
        rows = net.op(
            "Sin", net.op("Mul", net.op("Unsqueeze", net.op("Cast", steps, to=1), net.ints(1)), net.const(0.1))
        )
    y = scanned(net, net.op("Add", x, rows), RNG.uniform(0.5, 0.9, 3))
    model = lift(net, y, ["n", "t", 3], tmp_path, (2, 40), (3, 13))
    assert f"positions are known for {40 if stored else 2048} steps" in model.notes[0]
    long = {model.inputs[0].name: np.zeros((1, 41 if stored else 2049, 3), np.float32)}
    for target in ("cim", "epochcore"):
        with pytest.raises(UserError):
            compile_model(model, target, ideal=True).run(long)


def test_the_axis_of_a_sum_as_a_list(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Mul", net.input(["n", 12, 3]), net.const(np.ones(3)))
    model = lift(net, net.op("CumSum", x, net.ints(1)), ["n", 12, 3], tmp_path, (2, 12))
    assert kinds(model) == ["linear time-invariant"]


@pytest.mark.parametrize("length", [40, 300])
def test_a_stored_kernel_sliced_to_a_dynamic_length(tmp_path: Path, length: int) -> None:
    """Eight pairs a channel cannot be told from a few taps: as many are studied as there are."""
    net = Net()
    x = net.input(["n", "t", 2])
    size = net.op("Shape", x, start=1, end=2)
    stored = net.const(0.2 * modes(2, 8, length)[:, ::-1])
    taps = net.op("Slice", stored, net.op("Neg", size), net.ints(1 << 40), net.ints(1))
    pads = net.op("Concat", net.ints(0, 0), net.op("Sub", size, net.ints(1)), net.ints(0, 0, 0), axis=0)
    u = net.op("Pad", net.op("Transpose", x, perm=[0, 2, 1]), pads)
    y = net.op("Transpose", net.op("Conv", u, net.op("Unsqueeze", taps, net.ints(1)), group=2), perm=[0, 2, 1])
    model = lift(net, y, ["n", "t", 2], tmp_path, (2, 20), (1, length))
    (system,) = model.systems
    assert kinds(model) == ["linear time-invariant"] and system.groups * system.states <= 2 * 8


def test_a_number_of_the_step_inside_a_loop(tmp_path: Path) -> None:
    """h <- a h + u / (k + 1): what the body computes from its step alone is a table along time."""
    net, body = Net(), Net()
    x = net.input(["n", 12, 3])
    trips = net.op("Squeeze", net.op("Shape", x, start=1, end=2))
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    h = body.input(None)
    u = body.op("Gather", x, step, axis=1)
    count = body.op("Cast", body.op("Add", step, body.const(np.int64(1))), to=TensorProto.FLOAT)
    new = body.op("Add", body.op("Mul", h, body.const(np.full(3, 0.8))), body.op("Div", u, count))
    on, out = body.op("Identity", going), body.op("Identity", new)
    graph = body.subgraph([(on, None), (new, None), (out, None)], {on: TensorProto.BOOL})
    zeros = net.op("Mul", net.op("Gather", x, net.const(np.int64(0)), axis=1), net.const(np.zeros(())))
    _, y = net.op("Loop", trips, net.const(np.asarray(True)), zeros, outputs=2, body=graph)
    y = net.op("Tanh", net.op("Transpose", y, perm=[1, 0, 2]))
    assert kinds(lift(net, y, ["n", 12, 3], tmp_path, (2, 12), (3, 12))) == ["linear time-invariant"]


def test_features_before_steps_without_a_batch(tmp_path: Path) -> None:
    net = Net()
    steps = net.op("Unsqueeze", net.op("Transpose", net.input([3, 12]), perm=[1, 0]), net.ints(0))
    drive = net.op("MatMul", steps, net.const(RNG.standard_normal((3, 4))))
    y = net.op("Transpose", net.op("Squeeze", scanned(net, drive, RNG.uniform(0.5, 0.9, 4)), net.ints(0)), perm=[1, 0])
    model = lift(net, y, [4, 12], tmp_path, (1, 12))
    assert [port.axes for port in (*model.inputs, *model.outputs)] == ["ft", "ft"]
