"""What is no model, or none that can be lifted, is refused in one clear message."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ssmc.diagnostics import UserError
from ssmc.frontend import load_model, reference
from ssmc.frontend.importer import name_of
from tests.frontend import disguise, disguise_varying
from tests.frontend.mutate import damaged
from tests.frontend.net import Net, save
from tests.frontend.test_disguises import random_system

SYSTEM = random_system(1, 1, 3, 2, 2, True)


def refused(path: Path, *parts: str) -> str:
    with pytest.raises(UserError) as caught:
        load_model(path)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "Traceback" not in message and "\n    File" not in message
    return message


def stepwise(net: Net, x: str, y: str, features: int) -> onnx.ModelProto:
    return net.model([(y, ["b", "t", features])])


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
    model = stepwise(net, x, y, 2)
    model.opset_import.append(helper.make_opsetid("ai.acme", 1))
    path = save(model, tmp_path)
    names = [node.output[0] for node in model.graph.node if node.domain == "ai.acme"]
    said = ["5 nodes", "ai.acme::Fancy", "ai.acme::Odd", "model-local function", "(attention)", "Softmax", *names]
    refused(path, *said)
    told = load_model(path, strict=False)
    assert [r.op for r in told.unsupported] == ["ai.acme::Fancy", "ai.acme::Fancy", "ai.acme::Odd", "MatMul", "Softmax"]


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
        "(attention)",
        "Softmax",
        "3 nodes",
    )


def test_a_nonlinear_recurrence_is_refused_by_its_nodes(tmp_path: Path) -> None:
    net = Net()
    u, s = net.input(["b", 3]), net.input(["b", 3])
    following = net.op("Tanh", net.op("Add", net.op("MatMul", s, net.const(np.eye(3) * 0.5)), u))
    path = save(net.model([(net.op("Exp", following), ["b", 3]), (following, ["b", 3])]), tmp_path)
    with pytest.raises(UserError, match="not a linear function of the state"):
        load_model(path, states={net.inputs[1].name: following})


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_spikes_that_one_step_takes_and_gives_are_refused(tmp_path: Path, reset: str) -> None:
    """The first spikes, given from outside, need not be those of the first potential, all that a neuron keeps."""
    net = Net()
    u, potential, spikes = (net.input(["b", 3]) for _ in range(3))
    kept = net.op("Mul", potential, net.const(np.full(3, 0.8)))
    if reset == "zero":
        kept = net.op("Mul", kept, net.op("Sub", net.const(np.ones(())), spikes))
    new = net.op("Add", kept, u)
    new = net.op("Sub", new, spikes) if reset == "subtract" else new
    fired = net.op("Cast", net.op("Greater", new, net.const(np.ones(3))), to=TensorProto.FLOAT)
    y = net.op("MatMul", fired, net.const(np.ones((3, 2))))
    path = save(net.model([(y, ["b", 2]), (new, ["b", 3]), (fired, ["b", 3])]), tmp_path)
    with pytest.raises(UserError, match="the spikes of the step before, starting from zeros"):
        load_model(path, states={potential: new, spikes: fired})


def test_no_system_in_the_model(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    y = net.op("Relu", net.op("MatMul", x, net.const(np.ones((3, 5)))))
    refused(save(stepwise(net, x, y, 5), tmp_path), "no state-space system")


def test_a_dangling_value_and_a_cycle(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    y = net.op("Add", x, "nowhere")
    refused(save(stepwise(net, x, y, 3), tmp_path), "nothing produces", "'nowhere'")
    net = Net()
    x = net.input(["b", "t", 3])
    net.nodes.append(helper.make_node("Add", [x, "second"], ["first"]))
    net.nodes.append(helper.make_node("Neg", ["first"], ["second"]))
    refused(save(stepwise(net, x, "second", 3), tmp_path), "cycle")


def test_impossible_dimensions(tmp_path: Path) -> None:
    net = Net()
    x = net.input(["b", "t", 3])
    huge = TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[1 << 31, 1 << 31])
    net.weights.append(huge)
    refused(save(stepwise(net, x, net.op("Add", x, "huge"), 3), tmp_path), "'huge'", "impossible dimensions")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_external_weights_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 64)
    refused(_external(folder, location), "outside the model's folder", location)


def test_external_weights_are_read(tmp_path: Path) -> None:
    path = _external(tmp_path, "weights.bin")
    refused(path, "'weights.bin' is missing")
    (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    assert all(proof.passed for proof in load_model(path, strict=False).proofs)


def _external(folder: Path, location: str) -> Path:
    net = Net()
    x = net.input(["b", "t", 3])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="12")
    net.weights.append(weight)
    return save(stepwise(net, x, net.op("Mul", x, "w"), 3), folder)


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


@pytest.mark.parametrize("branches,levels,said", [(1, 18, "nested too deeply"), (2, 13, "too many subgraphs")])
def test_nested_subgraphs_end_in_a_message(tmp_path: Path, branches: int, levels: int, said: str) -> None:
    leaf = Net()
    inner = leaf.subgraph([(leaf.op("Identity", leaf.const(np.ones(3))), [3])])
    plain = inner
    for _ in range(levels):
        net = Net()
        other = inner if branches == 2 else plain
        inner = net.subgraph([(net.op("If", net.const(np.asarray(True)), then_branch=inner, else_branch=other), [3])])
    net = Net()
    x = net.input(["b", "t", 3])
    y = net.op("Add", x, net.op("If", net.const(np.asarray(True)), then_branch=inner, else_branch=plain))
    refused(save(stepwise(net, x, y, 3), tmp_path), said)


def hostile(build: Callable[[Net, str], str], dims: Sequence[int | str] = ("b", "t", 3)) -> onnx.ModelProto:
    net = Net()
    return net.model([(build(net, net.input(dims)), ["b", "t", 3])])


def with_functions(*bodies: tuple[str, list[str]]) -> onnx.ModelProto:
    """A model that calls the first of these functions, each of which calls others one after the other."""
    model = hostile(lambda net, x: net.op(bodies[0][0], x, domain="local"))
    opsets = [helper.make_opsetid("local", 1), helper.make_opsetid("", 20)]
    for name, called in bodies:
        values = ["x", *(f"v{k}" for k in range(len(called) - 1)), "y"]
        nodes = [helper.make_node(c, [values[k]], [values[k + 1]], domain="local") for k, c in enumerate(called)]
        nodes = nodes or [helper.make_node("Neg", ["x"], ["y"])]
        model.functions.append(helper.make_function("local", name, ["x"], ["y"], nodes, opsets))
    model.opset_import.append(opsets[0])
    return model


def scan_without(attribute: str) -> onnx.ModelProto:
    model = disguise.as_scan(SYSTEM)
    node = next(n for n in model.graph.node if n.op_type == "Scan")
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend(kept)
    return model


def long_loop(net: Net, x: str, trips: int | None, reads: bool = False) -> str:
    body = Net()
    step, going = body.input([], TensorProto.INT64), body.input([], TensorProto.BOOL)
    state = body.input(None)
    new = body.op("Add", state, body.op("Gather", x, step, axis=1) if reads else body.const(np.ones(3)))
    on = body.op("Identity", going)
    graph = body.subgraph([(on, None), (new, None)], {on: TensorProto.BOOL})
    count = "" if trips is None else net.const(np.int64(trips))
    found = net.op("Loop", count, net.const(np.asarray(True)), net.const(np.zeros((1, 3))), body=graph)
    return str(net.op("Add", x, found))


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an input of 2^31 steps": (lambda: hostile(lambda n, x: n.op("Relu", x), (1, 2**31 - 1, 3)), "is too large"),
    "an input of 2^31 features": (lambda: hostile(lambda n, x: n.op("Relu", x), ("b", "t", 2**31)), "is too large"),
    "a weight expanded": (
        lambda: hostile(
            lambda n, x: n.op(
                "Add", x, n.op("ReduceSum", n.op("Expand", n.const(np.ones((1, 1))), n.ints(2**17, 2**17)))
            )
        ),
        "gives 17179869184 numbers",
    ),
    "a constant of 2^60 numbers": (
        lambda: hostile(lambda n, x: n.op("Add", x, n.op("ConstantOfShape", n.ints(2**30, 2**30)))),
        "cannot run",
    ),
    "data padded": (lambda: hostile(lambda n, x: n.op("Pad", x, n.ints(0, 0, 0, 0, 2**40, 0))), "cannot run"),
    "a shape that does not fit": (lambda: hostile(lambda n, x: n.op("Reshape", x, n.ints(7, 11))), "cannot run"),
    "axes that are not there": (lambda: hostile(lambda n, x: n.op("Transpose", x, perm=[0, 0, 5])), "cannot run"),
    "no operands": (lambda: hostile(lambda n, x: n.op("Relu")), "cannot run"),
    "channels that do not divide": (
        lambda: hostile(lambda n, x: n.op("Conv", x, n.const(np.ones((4, 7, 3))), group=3)),
        "cannot run",
    ),
    "integers added to floats": (lambda: hostile(lambda n, x: n.op("Add", x, n.ints(1, 2, 3))), "int64"),
    "a function that calls itself": (lambda: with_functions(("F", ["F"])), "calls itself"),
    "functions that double thirty times": (
        lambda: with_functions(*((f"F{k}", [f"F{k + 1}"] * 2 if k < 30 else []) for k in range(31))),
        "stand for 1073741824 nodes",
    ),
    "a scale that depends on all steps": (
        lambda: hostile(lambda n, x: n.op("DequantizeLinear", *n.op("DynamicQuantizeLinear", x, outputs=3))),
        "dynamic quantisation",
    ),
    "a loop of 2^21 trips": (lambda: hostile(lambda n, x: long_loop(n, x, 2**21)), "2097152 trips"),
    "a loop of 2^40 trips": (lambda: hostile(lambda n, x: long_loop(n, x, 2**40)), "does not end"),
    "a loop that never ends": (lambda: hostile(lambda n, x: long_loop(n, x, None)), "does not end"),
    "a loop longer than the sequence": (
        lambda: hostile(lambda n, x: long_loop(n, x, 2**40, reads=True)),
        "its end cannot be found",
    ),
    "a range of 2^40": (
        lambda: hostile(
            lambda n, x: n.op("Gather", x, n.op("Range", *(n.const(np.int64(k)) for k in (0, 2**40, 1))), axis=1)
        ),
        "cannot run",
    ),
    "a scan without a body": (lambda: scan_without("body"), "without 'body'"),
    "an unknown number of scanned inputs": (lambda: scan_without("num_scan_inputs"), "num_scan_inputs"),
    "no inputs": (lambda: (n := Net()).model([(n.op("Relu", n.const(np.ones((2, 3)))), [2, 3])]), "no inputs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(name: str, tmp_path: Path) -> None:
    build, said = HOSTILE[name]
    before = time.process_time()
    refused(save(build(), tmp_path), said)
    assert time.process_time() - before < 10


def test_an_input_of_strings(tmp_path: Path) -> None:
    model = hostile(lambda net, x: net.op("Relu", x))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refused(save(model, tmp_path), "holds no real numbers")


def test_nodes_in_any_order(tmp_path: Path) -> None:
    model = disguise.as_unrolled(SYSTEM, 8)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert len(load_model(save(model, tmp_path)).systems) == 1


def test_a_link_to_weights_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 64)
    (folder / "weights.bin").symlink_to(tmp_path / "outside.bin")
    refused(_external(folder, "weights.bin"), "outside the model's folder")


def test_weights_beyond_the_end_of_their_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4)
    refused(_external(tmp_path, "weights.bin"), "cannot be read")


VALID = {
    "scan": disguise.as_scan(SYSTEM),
    "loop": disguise.as_loop(SYSTEM, "last", "flat", counted=True),
    "pieces": disguise.as_loop(SYSTEM, "pair", "sequence"),
    "step": disguise.as_step(SYSTEM),
    "unrolled": disguise.as_unrolled(SYSTEM, 6),
    "doubling": disguise.as_associative_scan(SYSTEM, 6),
    "tree": disguise.as_tree_scan(SYSTEM, 6),
    "fft": disguise.as_fft(random_system(2, 2, 1, 1, 1, True), 8),
    "toeplitz": disguise.as_toeplitz(random_system(2, 2, 1, 1, 1, False), 8),
    "chunks": disguise_varying.as_chunks(disguise_varying.Heads(1, 2, 2, 2, 7, False, False), 3),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(VALID)), st.integers(0, 1 << 32))
def test_damaged_models_are_lifted_or_refused(name: str, seed: int) -> None:
    """Whatever is wrong with a file, it ends in a message, and soon; what still loads was proved."""
    broken = damaged(VALID[name], seed)
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder, suppress(UserError):
        assert all(proof.passed for proof in load_model(save(broken, Path(folder))).proofs)
    assert time.process_time() - before < 10
