"""What a file may be made of: opsets, number formats, tokens, functions, external weights, leftovers of training."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ssmc.diagnostics import UserError
from ssmc.driver import compile_model
from ssmc.frontend import Model, load_model, reference
from ssmc.verification import verify
from tests.frontend import disguise_file, disguise_parallel
from tests.frontend.blocks import RNG
from tests.frontend.checks import refused
from tests.frontend.net import Net, save
from tests.frontend.test_disguises import random_system

WIDTH, STATES = 4, 6
OPSETS = range(13, onnx.defs.onnx_opset_version() + 1)
DTYPES = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
}


class Exported:
    """A block as an exporter of a given opset and number format writes it: Scan, norm, GELU, GLU, residual, pool."""

    def __init__(self, opset: int = 17, dtype: int = TensorProto.FLOAT) -> None:
        self.net, self.opset, self.dtype = Net(), opset, dtype
        self.rng = np.random.default_rng(7)

    def const(self, array: Any) -> str:
        name = self.net.fresh()
        self.net.weights.append(numpy_helper.from_array(np.asarray(array).astype(DTYPES[self.dtype]), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.const(0.5 * self.rng.standard_normal(shape))

    def linear(self, x: str, wide: int, narrow: int) -> str:
        return str(self.net.op("Add", self.net.op("MatMul", x, self.weight(wide, narrow)), self.weight(narrow)))

    def mean(self, x: str, axis: int, keep: int) -> str:
        if self.opset < 18:
            return str(self.net.op("ReduceMean", x, axes=[axis], keepdims=keep))
        return str(self.net.op("ReduceMean", x, self.net.ints(axis), keepdims=keep))

    def norm(self, x: str) -> str:
        scale, shift = self.const(self.rng.uniform(0.5, 1.5, WIDTH)), self.weight(WIDTH)
        if self.opset >= 23:
            return str(self.net.op("RMSNormalization", x, scale, axis=-1))
        if self.opset >= 17:
            return str(self.net.op("LayerNormalization", x, scale, shift, axis=-1))
        centred = self.net.op("Sub", x, self.mean(x, -1, 1))
        power = self.mean(self.net.op("Mul", centred, centred), -1, 1)
        root = self.net.op("Sqrt", self.net.op("Add", power, self.const(1e-5)))
        return str(self.net.op("Add", self.net.op("Mul", self.net.op("Div", centred, root), scale), shift))

    def gelu(self, x: str) -> str:
        if self.opset >= 24:
            return str(self.net.op("Swish", x, alpha=1.7))
        if self.opset >= 20:
            return str(self.net.op("Gelu", x))
        erf = self.net.op("Erf", self.net.op("Mul", x, self.const(np.sqrt(0.5))))
        half = self.net.op("Mul", x, self.const(0.5))
        return str(self.net.op("Mul", half, self.net.op("Add", erf, self.const(1.0))))

    def glu(self, x: str) -> str:
        how = {} if self.opset < 18 else {"num_outputs": 2}
        first, second = self.net.op("Split", x, outputs=2, axis=-1, **how)
        if self.opset >= 28:
            return str(self.net.op("SwiGLU", second, first, alpha=0.9))
        return str(self.net.op("Mul", first, self.net.op("Sigmoid", second)))

    def scan(self, x: str) -> str:
        """x (n, t, WIDTH) through a diagonal system."""
        net, body = self.net, Net()
        state = body.input(["n", STATES], self.dtype)
        u = body.input(["n", WIDTH], self.dtype)
        decay, into, out = (
            self.const(self.rng.uniform(0.5, 0.95, STATES)),
            self.weight(WIDTH, STATES),
            self.weight(STATES, WIDTH),
        )
        following = body.op("Add", body.op("Mul", state, decay), body.op("MatMul", u, into))
        y = body.op("MatMul", following, out)
        dtypes = {following: self.dtype, y: self.dtype}
        graph = body.subgraph([(following, ["n", STATES]), (y, ["n", WIDTH])], dtypes)
        size = net.op("Gather", net.op("Shape", x), net.ints(0), axis=0)
        zero = net.op("Expand", self.const([[0.0]]), net.op("Concat", size, net.ints(STATES), axis=0))
        steps = net.op("Transpose", x, perm=[1, 0, 2])
        _, rows = net.op("Scan", zero, steps, outputs=2, body=graph, num_scan_inputs=1)
        return str(net.op("Transpose", rows, perm=[1, 0, 2]))

    def model(self, y: str, dims: list[int | str]) -> onnx.ModelProto:
        info = helper.make_tensor_value_info(y, self.dtype, dims)
        graph = helper.make_graph(self.net.nodes, "g", self.net.inputs, [info], self.net.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def block(e: Exported, x: str) -> str:
    """Streams in and out, (n, t, WIDTH)."""
    y = e.glu(e.linear(e.gelu(e.norm(e.scan(x))), WIDTH, 2 * WIDTH))
    y = e.net.op("Squeeze", e.net.op("Unsqueeze", y, e.net.ints(1)), e.net.ints(1))
    return str(e.net.op("Add", x, y))


def checked(path: Path, tolerance: float = 1e-5, **inputs: Any) -> Model:
    """The model on both targets, at two batches and lengths, held against what runs the file."""
    model = load_model(path)
    assert len(model.systems) == 1
    port = model.inputs[0]
    for batch, length in ((2, 9), (3, 21)):
        rng = np.random.default_rng(5)
        if port.type.element == "index":
            x = rng.integers(0, 9, (batch, length))
        else:
            x = rng.standard_normal((batch, length, WIDTH)).astype(np.float32)
        expected = reference(model, {port.name: x})
        for target in ("cim", "epochcore"):
            found = compile_model(model, target, ideal=True).run({port.name: x}).outputs
            for name, array in expected.items():
                wide = np.asarray(array, np.float64)
                assert np.abs(found[name] - wide).max() <= tolerance * np.abs(wide).max()
    return model


@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(tmp_path: Path, opset: int) -> None:
    e = Exported(opset)
    y = e.linear(e.mean(block(e, e.net.input(["n", "t", WIDTH])), 1, 0), WIDTH, 3)
    checked(save(e.model(y, ["n", 3]), tmp_path))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (TensorProto.FLOAT16, 2e-2),
        (TensorProto.BFLOAT16, 1e-1),
        (TensorProto.DOUBLE, 1e-6),
    ],  # norms take their mean in float32
)
def test_number_formats(tmp_path: Path, dtype: int, tolerance: float) -> None:
    """Weights, inputs and outputs in one format: the lifted model is the file's in exact arithmetic."""
    e = Exported(18, dtype)
    x = e.net.input(["n", "t", WIDTH], dtype)
    model = checked(save(e.model(block(e, x), ["n", "t", WIDTH]), tmp_path), tolerance)
    exact = [proof for proof in model.proofs if "float64" in proof.against]
    assert len(exact) == 2 and all(proof.error < 1e-9 for proof in exact)
    told = [note for note in model.notes if "computes in float16" in note]
    assert len(told) == (dtype == TensorProto.FLOAT16)
    if told:  # with its size
        off = max(proof.error for proof in model.proofs if proof.against == "onnxruntime")
        assert 1e-4 < off < tolerance and f"up to {off:.1e} of the largest off" in told[0]


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_a_verdict_in_any_format(tmp_path: Path, dtype: int) -> None:
    """Ideal programs pass where they are nearer to the model than the reference, which rounds every node in float16."""
    e = Exported(18, dtype)
    x = e.net.input(["n", "t", WIDTH], dtype)
    path = save(e.model(block(e, x), ["n", "t", WIDTH]), tmp_path)
    arrays = {x: np.random.default_rng(2).standard_normal((2, 30, WIDTH)).astype(np.float32)}
    found = verify(path, "epochcore", arrays, ideal=True)
    error = max(each.relative for each in found.outputs.values())
    assert found.passed
    assert ("computes in float16" in found.note) == (found.tolerance > 1e-4) == (dtype == TensorProto.FLOAT16)
    assert error <= (2e-3 if dtype == TensorProto.FLOAT16 else 1e-5)
    y = next(iter(compile_model(load_model(path), "cim", ideal=True).run(arrays).outputs.values()))
    assert y.dtype == {TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}.get(dtype, np.float32)


def test_weights_stored_in_half_precision(tmp_path: Path) -> None:
    """float16 and bfloat16 weights that are cast where they are used."""
    e = Exported(18)
    x = e.net.input(["n", "t", WIDTH])
    for dtype in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        e.dtype = dtype
        stored = e.weight(WIDTH, WIDTH)
        e.dtype = TensorProto.FLOAT
        x = e.net.op("MatMul", x, e.net.op("Cast", stored, to=TensorProto.FLOAT))
    checked(save(e.model(block(e, x), ["n", "t", WIDTH]), tmp_path))


@pytest.mark.parametrize("dtype", [TensorProto.INT32, TensorProto.INT64])
def test_tokens(tmp_path: Path, dtype: int) -> None:
    e = Exported(18)
    tokens = e.net.input(["n", "t"], dtype)
    x = e.net.op("Gather", e.weight(9, WIDTH), tokens, axis=0)
    model = checked(save(e.model(block(e, x), ["n", "t", WIDTH]), tmp_path))
    assert model.inputs[0].dtype == {TensorProto.INT32: "int32", TensorProto.INT64: "int64"}[dtype]


def test_model_local_functions(tmp_path: Path) -> None:
    """A function that calls a function, with an attribute handed on, around the Scan."""
    e = Exported(18)
    y = block(e, e.net.input(["n", "t", WIDTH]))
    model = e.model(y, ["n", "t", WIDTH])
    leaky = helper.make_node("LeakyRelu", ["X"], ["Y"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "inner", ["X"], ["Y"], [leaky], opsets, ["slope"])
    call = helper.make_node("inner", ["X"], ["T"], domain="own")
    call.attribute.append(onnx.AttributeProto(name="slope", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    outer = helper.make_function(
        "own", "outer", ["X"], ["Y"], [call, helper.make_node("Neg", ["T"], ["Y"])], opsets, ["slope"]
    )
    names = [t.name for t in model.graph.initializer]
    whole = helper.make_function("own", "block", [model.graph.input[0].name, *names], [y], model.graph.node, opsets)
    nodes = [
        helper.make_node("block", [model.graph.input[0].name, *names], ["b"], domain="own"),
        helper.make_node("outer", ["b"], ["z"], domain="own", slope=0.3),
    ]
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", "t", WIDTH])
    graph = helper.make_graph(nodes, "g", model.graph.input, [out], model.graph.initializer)
    found = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[inner, outer, whole])
    checked(save(found, tmp_path))


def branch(name: str, factor: float) -> onnx.GraphProto:
    """A branch that captures `name` from outside."""
    net = Net()
    return net.subgraph([(net.op("Mul", name, net.const(factor)), None)])


def constant_if(e: Exported, x: str) -> str:
    condition = e.net.op("Not", e.net.const(np.asarray(False)))
    return str(e.net.op("If", condition, then_branch=branch(x, 2.0), else_branch=branch(x, 3.0)))


def if_on_rank(e: Exported, x: str) -> str:
    """What scripted code asks of a tensor's shape."""
    rank = e.net.op("Size", e.net.op("Shape", x))
    condition = e.net.op("Equal", rank, e.net.const(np.asarray(3)))
    return str(e.net.op("If", condition, then_branch=branch(x, 2.0), else_branch=branch(x, 3.0)))


def dropout(e: Exported, x: str) -> str:
    ratio, training = e.net.const(np.asarray(0.4)), e.net.const(np.asarray(False))
    y, _ = e.net.op("Dropout", x, ratio, training, outputs=2)
    return str(e.net.op("Identity", e.net.op("Dropout", y)))


@pytest.mark.parametrize("build", [constant_if, if_on_rank, dropout])
def test_leftovers(tmp_path: Path, build: Callable[[Exported, str], str]) -> None:
    e = Exported(18)
    y = build(e, block(e, build(e, e.net.input(["n", "t", WIDTH]))))
    checked(save(e.model(y, ["n", "t", WIDTH]), tmp_path))


def externalised(folder: Path, location: str) -> Path:
    """The block with its weights in the file `location`, all of them one after the other."""
    e = Exported(18)
    model = e.model(block(e, e.net.input(["n", "t", WIDTH])), ["n", "t", WIDTH])
    folder.mkdir(parents=True, exist_ok=True)
    offset, data = 0, b""
    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        if tensor.data_type != TensorProto.FLOAT:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        offset, data = offset + len(raw), data + raw
    target = folder / location
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return save(model, folder)


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin"])
def test_external_weights(tmp_path: Path, location: str) -> None:
    checked(externalised(tmp_path / "model", location))


def test_external_axes(tmp_path: Path) -> None:
    """onnxruntime wants axes in the file itself, and onnx.reference an axis of CumSum without dimensions."""
    net = Net()
    u = net.input([2, 9, WIDTH])
    summed = net.op("CumSum", net.op("Sub", u, net.op("ReduceMean", u, net.ints(-1))), net.ints(1))
    model = net.model([(summed, [2, 9, WIDTH])])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    lifted = load_model(tmp_path / "m.onnx")
    x = RNG.standard_normal((2, 9, WIDTH)).astype(np.float32)
    (y,) = reference(lifted, {u: x}).values()
    assert np.abs(y - np.cumsum(x - x.mean(-1, keepdims=True), 1)).max() <= 1e-5


@pytest.mark.parametrize("how", ["absolute", "..", "link", "linked folder"])
def test_external_weights_outside(tmp_path: Path, how: str) -> None:
    folder, outside = tmp_path / "model", tmp_path / "outside"
    location = {
        "absolute": str(outside / "weights.bin"),
        "..": "../outside/weights.bin",
        "link": "weights.bin",
        "linked folder": "sub/weights.bin",
    }[how]
    outside.mkdir()
    if how == "linked folder":
        folder.mkdir()
        os.symlink(outside, folder / "sub")
    path = externalised(folder, location)
    if how == "link":
        os.rename(folder / location, outside / "weights.bin")
        os.symlink(outside / "weights.bin", folder / location)
    with pytest.raises(UserError, match="outside the model's folder"):
        load_model(path)


def right_at_one_size(folder: Path, what: str) -> Path:
    """A file that runs at every size and is the same system at its traced size only."""
    e = Exported(18)
    x = e.net.input(["n", "t", WIDTH])
    y = block(e, x)
    axis = {"length": 1, "batch": 0}[what]
    size = e.net.op("Gather", e.net.op("Shape", x), e.net.const(np.asarray(axis)), axis=0)
    factor = e.net.op("Div", e.net.op("Cast", size, to=TensorProto.FLOAT), e.const(11.0))
    return save(e.model(e.net.op("Mul", y, factor), ["n", "t", WIDTH]), folder)


@pytest.mark.parametrize("what", ["length", "batch"])
def test_right_at_its_traced_size_only(tmp_path: Path, what: str) -> None:
    there = {"length": "length 17 than at length 11", "batch": "batch 1 than at batch 3"}[what]
    with pytest.raises(UserError, match=f"the file is another model at {there}"):
        load_model(right_at_one_size(tmp_path, what))


def _tree_of(net: Net, x: str, power: np.ndarray, steps: int) -> str:
    """Partial sums of powers of two steps at a time, the powers multiplied up in float16."""
    if steps == 1:
        return x
    table = net.fresh()
    net.weights.append(numpy_helper.from_array(power, table))

    def every_second(start: int, stop: int) -> str:
        return str(net.op("Slice", x, net.ints(start), net.ints(stop), net.ints(1), net.ints(2)))

    pairs = net.op("Add", every_second(1, steps), net.op("Mul", every_second(0, steps), net.op("Identity", table)))
    odd = _tree_of(net, pairs, power * power, steps // 2)
    first = net.op("Slice", x, net.ints(0), net.ints(1), net.ints(1))
    if steps == 2:
        return str(net.op("Concat", first, odd, axis=1))
    before = net.op("Slice", odd, net.ints(0), net.ints(-1), net.ints(1))
    later = net.op("Add", every_second(2, steps), net.op("Mul", before, net.op("Identity", table)))
    both = [net.op("Unsqueeze", p, net.ints(2)) for p in (net.op("Concat", first, later, axis=1), odd)]
    return str(net.op("Reshape", net.op("Concat", *both, axis=2), net.ints(0, steps, 4)))


def test_a_tree_of_float16_powers_is_as_even_as_they_are(tmp_path: Path) -> None:
    """No power is exactly another one squared: the steps differ by what float16 rounds, and inspect says so."""
    net, steps = Net(), 32
    x = net.op("Cast", net.input(["n", steps, 4]), to=TensorProto.FLOAT16)
    found = _tree_of(net, x, RNG.uniform(0.5, 0.9, 4).astype(np.float16), steps)
    y = net.op("Cast", found, to=TensorProto.FLOAT)
    model = load_model(save(net.model([(y, ["n", steps, 4])]), tmp_path))
    (system,) = model.systems
    assert 1e-5 < system.proof_error < 2e-3
    assert system.replacement is not None and "few digits" in system.replacement.how
    assert any("no system is nearer to it" in note for note in model.notes)  # and whoever compiles it is told
    u = {model.inputs[0].name: RNG.standard_normal((2, steps, 4)).astype(np.float32)}
    expected = next(iter(reference(model, u).values()))
    for target in ("cim", "epochcore"):
        (array,) = compile_model(model, target, ideal=True).run(u).outputs.values()
        assert np.abs(array - expected).max() <= 3e-3 * np.abs(expected).max()


@pytest.mark.invalid_files
def test_a_tree_of_bfloat16_powers_that_is_no_system_is_told_as_that(tmp_path: Path) -> None:
    """Not as a fault of the compiler: each power is rounded for itself."""
    tree = disguise_parallel.as_tree_scan(random_system(4, 1, 4, 2, 2, True), 8, False)
    path = save(disguise_file.stored_in(tree, TensorProto.BFLOAT16), tmp_path)
    refused(path, "belong to no one system", "stored in bfloat16", "in float32, or as a recurrence")
