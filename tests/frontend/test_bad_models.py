"""What is no model, or none that can be lifted, is refused in one clear message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ssmc.diagnostics import UserError
from ssmc.frontend import load_model, reference
from ssmc.frontend.source.importer import name_of
from tests.frontend import disguise
from tests.frontend.blocks import decaying
from tests.frontend.checks import refused
from tests.frontend.net import Net, save, stepwise
from tests.frontend.test_disguises import random_system

SYSTEM = random_system(1, 1, 3, 2, 2, True)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "no file")


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text\n" * 20, bytes(range(256)), b"\x89PNG\r\n\x1a\n" + b"\0" * 64]
)
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX file", str(path))


@pytest.mark.parametrize("part", [0.3, 0.7, 0.97])
def test_truncated(tmp_path: Path, part: float) -> None:
    path = save(disguise.as_scan(SYSTEM), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    model = disguise.as_scan(SYSTEM)
    body = next(node for node in model.graph.node if node.op_type == "Scan").attribute
    weights = next(a.g for a in body if a.name == "body").initializer
    array = numpy_helper.to_array(weights[-1]).copy()
    array.flat[0] = value
    weights[-1].CopyFrom(numpy_helper.from_array(array, weights[-1].name))
    refused(save(model, tmp_path), "not finite", weights[-1].name)


def test_unknown_ops_are_listed_together_with_the_rest(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 2])
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    x = net.op("MatMul", net.op("Softmax", scores, axis=-1), x)
    y = net.op("Fancy", net.op("Fancy", x, domain="ai.acme"), domain="ai.acme")
    y = net.op("Odd", y, domain="ai.acme")
    model = stepwise(net, y, 2)
    model.opset_import.append(helper.make_opsetid("ai.acme", 1))
    path = save(model, tmp_path)
    names = [node.output[0] for node in model.graph.node if node.domain == "ai.acme"]
    said = ["4 nodes", "ai.acme::Fancy", "ai.acme::Odd", "model-local function", "attention", "Softmax", *names]
    refused(path, *said)
    told = load_model(path, strict=False)
    assert [r.op for r in told.unsupported] == ["ai.acme::Fancy", "ai.acme::Fancy", "ai.acme::Odd", "Softmax"]


@pytest.mark.parametrize(
    ("domain", "kind", "reason"),
    [
        ("", "TensorListReserve", "a converter leaves an op of another framework as it was"),
        ("com.microsoft.nchwc", "ReorderOutput", "optimised at the level 'extended'"),
        ("ai.onnx.ml", "Normalizer", "an op of classical machine learning"),
    ],
)
def test_unknown_ops_are_told_by_where_they_come_from(tmp_path: Path, domain: str, kind: str, reason: str) -> None:
    net = Net()
    s = net.op("CumSum", net.input(["b", "t", 2]), net.const(np.int64(1)))
    model = net.model([(net.op(kind, s, domain=domain), ["b", "t", 2])])
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    refused(save(model, tmp_path), kind, reason)


def test_unknown_ops_in_bodies_and_after_systems(tmp_path: Path) -> None:
    model = disguise.as_scan(SYSTEM)
    model.graph.node.append(helper.make_node("Odd", [model.graph.output[0].name], ["odd"], name="odd_one"))
    body = next(a.g for node in model.graph.node for a in node.attribute if a.name == "body")
    before = load_model(save(model, tmp_path), strict=False)
    assert [r.node for r in before.unsupported] == ["odd_one"] and len(before.systems) == 1
    body.node[0].op_type = "Odd"
    inside = load_model(save(model, tmp_path), strict=False)
    assert {r.node for r in inside.unsupported} == {"odd_one", name_of(body.node[0])} and not inside.systems


def test_what_only_an_unknown_op_cuts_off_is_not_blamed(tmp_path: Path) -> None:
    """Single steps make sense with the unrolled loop that takes them, which an unknown op hides."""
    net = Net()
    u = net.input(["b", 4, 3])
    state = net.op("Odd", u, domain="ai.acme")
    for k in range(4):
        step = net.op("Gather", u, net.const(np.int64(k)), axis=1)
        state = net.op("Add", net.op("Mul", state, net.const(np.full(3, 0.5))), step)
    model = net.model([(state, ["b", 3])])
    model.opset_import.append(helper.make_opsetid("ai.acme", 1))
    assert [r.op for r in load_model(save(model, tmp_path), strict=False).unsupported] == ["ai.acme::Odd"]


def test_untranslatable_nodes_are_listed_together(tmp_path: Path) -> None:
    net = Net()
    x = net.input([1, 6, 4])
    weights = [net.const(np.ones((1, 16, 4))), net.const(np.ones((1, 16, 4)))]
    y = net.op("Squeeze", net.op("LSTM", net.op("Transpose", x, perm=[1, 0, 2]), *weights, hidden_size=4), net.ints(1))
    scores = net.op("Softmax", net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1])), axis=-1)
    y = net.op("Add", net.op("Transpose", y, perm=[1, 0, 2]), net.op("MatMul", scores, x))
    refused(
        save(net.model([(y, [1, 6, 4])]), tmp_path),
        "LSTM",
        "not linear in its state",
        "attention",
        "Softmax",
        "2 nodes",
    )


def test_a_nonlinear_recurrence_is_refused_by_its_nodes(tmp_path: Path) -> None:
    net = Net()
    u, s = net.input(["b", 3]), net.input(["b", 3])
    following = net.op("Tanh", net.op("Add", net.op("MatMul", s, net.const(np.eye(3) * 0.5)), u))
    path = save(net.model([(net.op("Exp", following), ["b", 3]), (following, ["b", 3])]), tmp_path)
    with pytest.raises(UserError, match="not a linear function of the state"):
        load_model(path, states={net.inputs[1].name: following})


def test_no_system_in_the_model(tmp_path: Path) -> None:
    """One step, perhaps, of a network that has states."""
    net = Net()
    x = net.input(["b", 3])
    y = net.op("Relu", net.op("MatMul", x, net.const(np.ones((3, 5)))))
    refused(save(net.model([(y, ["b", 5])]), tmp_path), "no state-space system")


def test_a_reading_without_a_system_hides_no_reason(tmp_path: Path) -> None:
    """Read along its three features, with tables by step, the model would do; nobody means that."""
    rng, net = np.random.default_rng(4), Net()
    x = net.op("Transpose", net.input([2, 6, 3]), perm=[0, 2, 1])
    mixed = net.op("MatMul", net.op("Pad", x, net.ints(0, 0, 0, 0, 0, 6)), net.const(rng.standard_normal((12, 12))))
    mixed = net.op("Slice", net.op("Mul", mixed, net.const(rng.standard_normal((3, 12)))), *map(net.ints, (0, 6, 2)))
    y = net.op("Transpose", mixed, perm=[0, 2, 1])
    refused(save(net.model([(y, [2, 6, 3])]), tmp_path), "Pad", "does not treat all time steps alike")


def test_neurons_of_no_known_kind_hide_behind_no_other_reading(tmp_path: Path) -> None:
    """Steps that are not linear, each feature by itself: read along the features nothing mixes."""
    net = Net()
    x = net.input([2, 12, 3])
    state, spikes = None, []
    for k in range(12):
        here = net.op("Gather", x, net.const(np.int64(k)), axis=1)
        state = here if state is None else net.op("Add", here, net.op("Mul", state, net.const(np.float32(0.9))))
        fires = net.op(
            "Sigmoid", net.op("Mul", net.op("Sub", state, net.const(np.float32(1))), net.const(np.float32(5)))
        )
        state = net.op("Sub", state, fires)
        spikes.append(net.op("Unsqueeze", fires, net.ints(1)))
    path = save(net.model([(net.op("Concat", *spikes, axis=1), [2, 12, 3])]), tmp_path)
    refused(path, "Sigmoid", "not linear")


@pytest.mark.parametrize("directions", [1, 2])
def test_networks_that_nothing_here_can_run_are_refused_by_name(tmp_path: Path, directions: int) -> None:
    net, rng = Net(), np.random.default_rng(3)
    x = net.op("Transpose", net.input([2, 8, 3]), perm=[1, 0, 2])
    weights = [net.const(rng.standard_normal((directions, 4, n))) for n in (3, 4)]
    direction = "forward" if directions == 1 else "bidirectional"
    y = net.op("RNN", x, *weights, hidden_size=4, activations=["Relu"] * directions, direction=direction)
    y = net.op("Transpose", net.op("ReduceSum", y, net.ints(1), keepdims=0), perm=[1, 0, 2])
    refused(save(net.model([(y, [2, 8, 4])]), tmp_path), "RNN", "a recurrent network with a nonlinear state")


def test_a_dangling_value_and_a_cycle(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    y = net.op("Add", x, "nowhere")
    refused(save(stepwise(net, y, 3), tmp_path), "nothing produces", "'nowhere'")
    net = Net()
    x = net.input(["b", "t", 3])
    net.nodes.append(helper.make_node("Add", [x, "second"], ["first"]))
    net.nodes.append(helper.make_node("Neg", ["first"], ["second"]))
    refused(save(stepwise(net, "second", 3), tmp_path), "cycle")


def test_a_file_that_is_right_at_its_traced_length_only(tmp_path: Path) -> None:
    """Length declared dynamic, but a table of 11 positions added: it cannot run at another."""
    model = disguise.as_scan(SYSTEM)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 11, 2), np.float32), "table"))
    scan = next(node for node in model.graph.node if node.op_type == "Transpose")
    scan.input[0], old = "shifted", scan.input[0]
    model.graph.node.insert(0, helper.make_node("Add", [old, "table"], ["shifted"]))
    refused(save(model, tmp_path), "cannot run")


def test_wrong_inputs_of_a_good_model(tmp_path: Path) -> None:
    model = load_model(save(disguise.as_scan(SYSTEM), tmp_path))
    name = model.inputs[0].name
    x = np.zeros((2, 5, 2), np.float32)
    for inputs, part in (
        ({"other": x}, f"its inputs are: {name}"),
        ({}, f"the input '{name}' is missing"),
        ({name: x[0]}, "(batch, time, 2)"),
        ({name: np.zeros((2, 5, 3))}, "has the shape (2, 5, 3)"),
        ({name: x.astype(complex)}, "complex"),
    ):
        with pytest.raises(UserError) as caught:
            reference(model, inputs)
        assert part in str(caught.value)


def test_wrong_names_of_states(tmp_path: Path) -> None:
    path = save(disguise.as_step(SYSTEM), tmp_path)
    with pytest.raises(UserError, match="no input 'nothing'"):
        load_model(path, states={"nothing": "y"})


def test_nodes_in_any_order(tmp_path: Path) -> None:
    model = disguise.as_unrolled(SYSTEM, 8)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert len(load_model(save(model, tmp_path)).systems) == 1


def test_a_file_of_two_types_is_not_called_dynamic(tmp_path: Path) -> None:
    """A converter to float16 leaves Casts to float32 as they are: onnxruntime says so, whatever the size is."""
    net = Net()
    x = net.input(["b", "t", 2])
    mask = net.op("Cast", net.op("Greater", x, net.const(np.float32(0.1))), to=TensorProto.FLOAT)
    half = net.op("Mul", net.op("Cast", x, to=TensorProto.FLOAT16), mask)
    y = decaying(net, net.op("Cast", half, to=TensorProto.FLOAT), 2)
    message = refused(save(net.model([(y, ["b", "t", 2])]), tmp_path), "onnxruntime does not take the file")
    assert "fixed size" not in message and "float16" in message


@pytest.mark.parametrize("declared", [TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE])
def test_outputs_that_are_declared_as_of_another_type(tmp_path: Path, declared: int) -> None:
    """Numbers were cut off to what the file declares, which no node gives."""
    model = disguise.as_scan(SYSTEM)
    model.graph.output[0].type.tensor_type.elem_type = declared
    refused(save(model, tmp_path), "onnxruntime does not take the file", model.graph.output[0].name, "expected type")


@pytest.mark.parametrize("axes", [[1.5], [0, 0], [9]])
def test_axes_that_are_none(tmp_path: Path, axes: list[float]) -> None:
    model = disguise.as_scan(SYSTEM)
    scan = next(node for node in model.graph.node if node.op_type == "Scan")
    model.graph.node.append(helper.make_node("Unsqueeze", [scan.input[-1], "axes"], ["wide"]))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(axes), "axes"))
    scan.input[-1] = "wide"
    refused(save(model, tmp_path))
